#pragma once

#include <string>

#include "runtime/host_facts.hpp"
#include "runtime/resources.hpp"

namespace gantry::runtime {

/// Sets the weights and rates per device that `changes` names on the group of a running container; a rate of 0 lifts
/// the limit. `runc update` leaves them out. Requires resolved devices (devices.hpp). Throws with the kernel's reason.
/// Blocks on the cgroup files.
void write_block_limits_blocking(const HostFacts& facts, const std::string& group, const Resources& changes);

}  // namespace gantry::runtime
