#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "async/signal.hpp"
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

/// Reads what containers use: each at most once a second, however many clients watch it.
class StatsReader {
 public:
  explicit StatsReader(Services& services) : services_(services) {}

  /// A reading that is less than a second old and later than `after`. A container that ends meanwhile counts as not
  /// running. Throws timed_out if the kernel does not answer.
  Task<StatsSample> read(ContainerPtr container, Timestamp after = {});

 private:
  struct Entry {
    StatsSample latest;
    std::chrono::steady_clock::time_point at{};  // when `latest` was read; the epoch: never
    bool reading = false;
    async::Signal done;  // a reading has ended
  };
  Task<StatsSample> read_now(ContainerPtr container) const;

  Services& services_;
  std::map<std::string, std::shared_ptr<Entry>> entries_;  // by container id
};

/// /proc/<pid>/net/dev.
std::map<std::string, InterfaceCounters> parse_net_dev(std::string_view text);
/// The first line of /proc/stat in nanoseconds, idle time included.
std::uint64_t parse_system_cpu(std::string_view text);

}  // namespace gantry::engine
