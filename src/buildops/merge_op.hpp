#pragma once

#include <memory>

#include "buildops/operations.hpp"
#include "llb/definition.hpp"

namespace gantry::buildops {

/// Several trees over each other, layer by layer, the last on top.
std::unique_ptr<solver::Operation> make_merge_operation(const Services& services, const llb::Vertex& vertex);
/// What makes one tree of another, as a layer on nothing, for use in merges.
std::unique_ptr<solver::Operation> make_diff_operation(const Services& services, const llb::Vertex& vertex);

}  // namespace gantry::buildops
