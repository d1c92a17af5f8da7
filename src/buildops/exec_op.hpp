#pragma once

#include <memory>

#include "buildops/disposal.hpp"
#include "buildops/operations.hpp"
#include "llb/definition.hpp"
#include "runtime/seccomp.hpp"

namespace gantry::buildops {

/// What all process steps share. Outlives them.
struct ExecShared {
  explicit ExecShared(const runtime::HostFacts& facts) : seccomp(facts) {}
  runtime::SeccompCache seccomp;
  Disposal disposal;
};

/// RUN: a process in a container whose root is the step's tree.
std::unique_ptr<solver::Operation> make_exec_operation(const Services& services, ExecShared& shared,
                                                       const llb::Vertex& vertex);

}  // namespace gantry::buildops
