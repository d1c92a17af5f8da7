#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

/// Capability sets of a process as bit masks, and the kernel's names for the bits.
namespace gantry::sys {

struct CapabilitySets {
  std::uint64_t bounding = 0;
  std::uint64_t permitted = 0;
  std::uint64_t effective = 0;
};

/// Our own, from /proc/self/status. Throws internal if /proc is not there.
CapabilitySets read_own_capabilities();

/// "CAP_CHOWN" … in the order of the bits, as linux/capability.h of Linux 6 lists them.
const std::vector<std::string_view>& capability_names();

/// The highest bit that the running kernel knows (/proc/sys/kernel/cap_last_cap); the last one in our table if the
/// file cannot be read.
unsigned last_capability();

}  // namespace gantry::sys
