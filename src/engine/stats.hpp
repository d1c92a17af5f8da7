#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "async/task.hpp"
#include "base/time.hpp"
#include "engine/container.hpp"
#include "engine/services.hpp"
#include "sys/cgroup.hpp"

namespace gantry::engine {

struct InterfaceCounters {
  std::uint64_t rx_bytes = 0;
  std::uint64_t rx_packets = 0;
  std::uint64_t rx_errors = 0;
  std::uint64_t rx_dropped = 0;
  std::uint64_t tx_bytes = 0;
  std::uint64_t tx_packets = 0;
  std::uint64_t tx_errors = 0;
  std::uint64_t tx_dropped = 0;
};

/// One reading of what a container uses.
struct StatsSample {
  Timestamp read{};
  bool running = false;  // false: nothing else is set
  sys::CgroupStats cgroup;
  std::uint64_t system_cpu_ns = 0;  // all processors of the machine together, since boot
  int online_cpus = 0;
  std::map<std::string, InterfaceCounters> interfaces;  // without "lo"; empty if the network is not the container's own
};

/// Reads control groups and counters in the quick lane. A container that ends meanwhile counts as not running.
Task<StatsSample> sample_stats(Services& services, ContainerPtr container);

/// /proc/<pid>/net/dev.
std::map<std::string, InterfaceCounters> parse_net_dev(std::string_view text);
/// The first line of /proc/stat in nanoseconds, idle time included.
std::uint64_t parse_system_cpu(std::string_view text);

}  // namespace gantry::engine
