#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sys/file.hpp"

/// Control groups of containers, the same for version 1, version 2 and machines that mix them (hybrid).
/// Files below /sys/fs/cgroup never wait for a disk, but reading `memory.stat` of a big group can take a millisecond:
/// call from a lane.
namespace gantry::sys {

enum class CgroupMode { none, v1, v2, hybrid };

/// Where the hierarchies are mounted.
struct CgroupLayout {
  CgroupMode mode = CgroupMode::none;
  Path unified;  // the version 2 mount: the whole tree (v2), or beside the version 1 ones (hybrid)
  std::map<std::string, Path, std::less<>> controllers;  // version 1: "memory" → its mount; "name=systemd" too
  std::vector<std::string> unified_controllers;          // version 2: cgroup.controllers of the root
  std::vector<std::string> unmounted;                    // version 1 controllers that the kernel has but nobody mounted

  /// Containers' limits live in version 2.
  bool is_v2() const noexcept { return mode == CgroupMode::v2; }
  bool has(std::string_view controller) const;
  /// The group `group` ("/docker/<id>") of `controller`; in version 2 one directory serves all. nullopt: not mounted.
  std::optional<Path> directory(std::string_view controller, std::string_view group) const;
};

/// Reads /proc/self/mountinfo and /proc/cgroups. Never throws; nothing found is CgroupMode::none.
CgroupLayout probe_cgroups();

/// The directory of the group of `controller` that this process is in. nullopt if that hierarchy is not mounted.
/// Blocks  on the kernel's lock of all cgroups.
std::optional<Path> own_cgroup(const CgroupLayout& layout, std::string_view controller);

struct BlkioEntry {
  std::uint64_t major = 0;
  std::uint64_t minor = 0;
  std::string op;  // "Read", "Write", "Sync" …, as in version 1; version 2 gives "read" and "write"
  std::uint64_t value = 0;
};

/// One reading. What a machine cannot tell stays zero or empty. Times are nanoseconds, sizes bytes.
struct CgroupStats {
  std::uint64_t memory_usage = 0;
  std::uint64_t memory_max_usage = 0;
  std::uint64_t memory_limit = 0;  // 0: none
  std::uint64_t memory_failcnt = 0;
  std::uint64_t oom_kills = 0;
  std::map<std::string, std::uint64_t> memory_stat;  // the kernel's names

  std::uint64_t cpu_total = 0;
  std::uint64_t cpu_user = 0;
  std::uint64_t cpu_kernel = 0;
  std::vector<std::uint64_t> cpu_per_cpu;  // version 1 only
  std::uint64_t throttling_periods = 0;
  std::uint64_t throttled_periods = 0;
  std::uint64_t throttled_time = 0;

  std::uint64_t pids_current = 0;
  std::uint64_t pids_limit = 0;  // 0: none

  std::vector<BlkioEntry> io_service_bytes;
  std::vector<BlkioEntry> io_serviced;
};

/// Throws not_found if no hierarchy has the group.
CgroupStats read_cgroup_stats(const CgroupLayout& layout, std::string_view group);

/// The processes of the group and of the groups below it. Empty if it does not exist.
std::vector<pid_t> list_cgroup_pids(const CgroupLayout& layout, std::string_view group);

/// How often the kernel killed a process of the group for lack of memory. 0 if it cannot be told.
std::uint64_t count_oom_kills(const CgroupLayout& layout, std::string_view group);

/// Kills every process of the group and those below (cgroup.kill where there is one). Does not wait for them.
void kill_cgroup(const CgroupLayout& layout, std::string_view group);

/// Removes the group and the empty groups below it from every hierarchy. False if some hierarchy refused because
/// processes are left. A group that is not there is fine.
bool remove_cgroup(const CgroupLayout& layout, std::string_view group);

/// Names of the groups right below `parent` in any hierarchy.
std::vector<std::string> list_child_cgroups(const CgroupLayout& layout, std::string_view parent);

/// Makes the group in every hierarchy that can hold it (the runtime does this for containers; we need it for parents).
void create_cgroup(const CgroupLayout& layout, std::string_view group);

/// Moves this process, with all its threads, into the group: in the hierarchies of memory and pids, and in version 2.
void enter_cgroup(const CgroupLayout& layout, std::string_view group);

/// Bounds the memory of the group and those below; 0: no bound. False where the machine cannot.
bool limit_cgroup_memory(const CgroupLayout& layout, std::string_view group, std::int64_t bytes);

}  // namespace gantry::sys
