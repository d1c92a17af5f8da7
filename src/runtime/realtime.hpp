#pragma once

#include <cstdint>
#include <string>

#include "runtime/host_facts.hpp"

namespace gantry::runtime {

/// Gives the containers' parent group its share of real-time scheduling, in microseconds; 0 leaves a value as it is.
/// The group and those above it are made where they are missing: the kernel lends no group more than its parent has.
/// Throws unavailable where the kernel has no real-time groups (none with cgroup v2). Blocks on the cgroup files.
void set_realtime_share_blocking(const HostFacts& facts, const std::string& parent, std::int64_t period,
                                 std::int64_t runtime);

}  // namespace gantry::runtime
