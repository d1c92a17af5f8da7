#pragma once

#include <memory>

#include "buildops/operations.hpp"
#include "llb/definition.hpp"

namespace gantry::buildops {

/// COPY, ADD, WORKDIR and whatever else changes files without a process. All actions that follow from each other make
/// one layer.
std::unique_ptr<solver::Operation> make_file_operation(const Services& services, const llb::Vertex& vertex);

}  // namespace gantry::buildops
