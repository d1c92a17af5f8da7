#pragma once

#include <memory>

#include "buildops/operations.hpp"
#include "llb/definition.hpp"
#include "runtime/seccomp.hpp"

namespace gantry::buildops {

/// RUN: a process in a container whose root is the step's tree. `seccomp` is shared by all and outlives the operation.
std::unique_ptr<solver::Operation> make_exec_operation(const Services& services, runtime::SeccompCache& seccomp,
                                                       const llb::Vertex& vertex);

}  // namespace gantry::buildops
