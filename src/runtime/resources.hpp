#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gantry::runtime {

/// A weight or a rate for one block device. `path` is what the user named; the numbers are filled in by
/// `resolve_block_devices_blocking` (devices.hpp) before a spec is rendered.
struct BlockDeviceLimit {
  std::string path;
  std::uint64_t value = 0;  // weight, bytes per second, or operations per second
  std::int64_t major = 0;
  std::int64_t minor = 0;

  bool operator==(const BlockDeviceLimit&) const = default;
};

/// What a container may use, in the terms of the Engine API's `Resources`. Zero, empty and nullopt mean "not set".
struct Resources {
  std::int64_t memory = 0;                        // bytes
  std::int64_t memory_swap = 0;                   // bytes, memory and swap together; -1: no limit
  std::int64_t memory_reservation = 0;            // bytes
  std::optional<std::int64_t> memory_swappiness;  // 0..100; -1 is "not set" (v1 only)
  std::optional<bool> oom_kill_disable;           // v1 only
  std::int64_t nano_cpus = 0;                     // billionths of a processor
  std::int64_t cpu_shares = 0;
  std::int64_t cpu_period = 0;            // microseconds
  std::int64_t cpu_quota = 0;             // microseconds; -1: no limit
  std::int64_t cpu_realtime_period = 0;   // microseconds (v1 only)
  std::int64_t cpu_realtime_runtime = 0;  // microseconds (v1 only)
  std::string cpuset_cpus;
  std::string cpuset_mems;
  std::optional<std::int64_t> pids_limit;  // <= 0: no limit
  std::uint16_t blkio_weight = 0;          // 10..1000
  std::vector<BlockDeviceLimit> blkio_weight_device;
  std::vector<BlockDeviceLimit> blkio_read_bps;
  std::vector<BlockDeviceLimit> blkio_write_bps;
  std::vector<BlockDeviceLimit> blkio_read_iops;
  std::vector<BlockDeviceLimit> blkio_write_iops;

  bool operator==(const Resources&) const = default;
};

/// A limit of setrlimit(2). `name` is Docker's lower-case form ("nofile"); -1 is "unlimited".
struct Ulimit {
  std::string name;
  std::int64_t soft = 0;
  std::int64_t hard = 0;

  bool operator==(const Ulimit&) const = default;
};

}  // namespace gantry::runtime
