#include "sys/cgroup.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/mount.hpp"

namespace gantry::sys {
namespace {

/// memory.limit_in_bytes of an unlimited group is the greatest multiple of the page size below 2^63; anything that
/// big means "none".
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 62;
/// cpuacct.stat counts in USER_HZ, which is 100 on every architecture that we run on (time(7)).
constexpr std::uint64_t kNanosecondsPerTick = 10'000'000;

std::uint64_t read_number(const Path& file) {
  const auto text = try_read_small(file);
  if (!text) return 0;
  return static_cast<std::uint64_t>(parse_int(trim(*text)).value_or(0));
}

/// Lines "name value".
std::map<std::string, std::uint64_t> read_table(const Path& file) {
  std::map<std::string, std::uint64_t> table;
  const auto text = try_read_small(file);
  if (!text) return table;
  for (const std::string& line : split(*text, '\n')) {
    const auto [name, value] = split_once(line, ' ');
    if (const auto number = parse_int(trim(value))) table.emplace(name, static_cast<std::uint64_t>(*number));
  }
  return table;
}

std::uint64_t value_of(const std::map<std::string, std::uint64_t>& table, const char* name) {
  const auto found = table.find(name);
  return found == table.end() ? 0 : found->second;
}

bool exists_directory(const Path& path) {
  struct stat st{};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

/// Every directory that is `group` in one of the hierarchies and exists.
std::vector<Path> existing_directories(const CgroupLayout& layout, std::string_view group) {
  std::set<Path> unique;
  const Path relative = Path(group).relative_path();
  for (const auto& [controller, mount] : layout.controllers) unique.insert(mount / relative);
  if (!layout.unified.empty()) unique.insert(layout.unified / relative);
  std::vector<Path> found;
  for (const Path& path : unique)
    if (exists_directory(path)) found.push_back(path);
  return found;
}

std::vector<std::string> list_groups_below(const Path& directory) {
  std::vector<std::string> names;
  std::error_code failed;
  for (std::filesystem::directory_iterator it(directory, failed), end; !failed && it != end; it.increment(failed))
    if (it->is_directory(failed) && !it->is_symlink(failed)) names.push_back(it->path().filename());
  return names;
}

void collect_pids(const Path& directory, std::set<pid_t>& pids) {
  if (const auto text = try_read_small(directory / "cgroup.procs"))
    for (const std::string& line : split(*text, '\n'))
      if (const auto pid = parse_int(line); pid && *pid > 0) pids.insert(static_cast<pid_t>(*pid));
  for (const std::string& name : list_groups_below(directory)) collect_pids(directory / name, pids);
}

bool remove_directory_tree(const Path& directory) {
  bool all = true;
  for (const std::string& name : list_groups_below(directory)) all &= remove_directory_tree(directory / name);
  if (::rmdir(directory.c_str()) == 0 || errno == ENOENT) return all;
  if (errno == EBUSY || errno == ENOTEMPTY) return false;
  throw Error::from_errno(errno, fmt::format("remove cgroup {}", directory.string()));
}

void read_memory_v1(const Path& dir, CgroupStats& stats) {
  stats.memory_usage = read_number(dir / "memory.usage_in_bytes");
  stats.memory_max_usage = read_number(dir / "memory.max_usage_in_bytes");
  const std::uint64_t limit = read_number(dir / "memory.limit_in_bytes");
  stats.memory_limit = limit >= kNoLimit ? 0 : limit;
  stats.memory_failcnt = read_number(dir / "memory.failcnt");
  stats.memory_stat = read_table(dir / "memory.stat");
  stats.oom_kills = value_of(read_table(dir / "memory.oom_control"), "oom_kill");
}

void read_cpu_v1(const CgroupLayout& layout, std::string_view group, CgroupStats& stats) {
  if (const auto dir = layout.directory("cpuacct", group)) {
    stats.cpu_total = read_number(*dir / "cpuacct.usage");
    const auto ticks = read_table(*dir / "cpuacct.stat");
    stats.cpu_user = value_of(ticks, "user") * kNanosecondsPerTick;
    stats.cpu_kernel = value_of(ticks, "system") * kNanosecondsPerTick;
    if (const auto text = try_read_small(*dir / "cpuacct.usage_percpu"))
      for (const std::string& part : split(trim(*text), ' '))
        if (const auto number = parse_int(part)) stats.cpu_per_cpu.push_back(static_cast<std::uint64_t>(*number));
  }
  if (const auto dir = layout.directory("cpu", group)) {
    const auto table = read_table(*dir / "cpu.stat");
    stats.throttling_periods = value_of(table, "nr_periods");
    stats.throttled_periods = value_of(table, "nr_throttled");
    stats.throttled_time = value_of(table, "throttled_time");
  }
}

/// Lines "8:0 Read 4096"; the last one is a total without a device.
std::vector<BlkioEntry> read_blkio_v1(const Path& file) {
  std::vector<BlkioEntry> entries;
  const auto text = try_read_small(file);
  if (!text) return entries;
  for (const std::string& line : split(*text, '\n')) {
    const auto fields = split(line, ' ');
    if (fields.size() != 3) continue;
    const auto [major, minor] = split_once(fields[0], ':');
    const auto a = parse_int(major), b = parse_int(minor), value = parse_int(fields[2]);
    if (!a || !b || !value) continue;
    entries.push_back({.major = static_cast<std::uint64_t>(*a),
                       .minor = static_cast<std::uint64_t>(*b),
                       .op = fields[1],
                       .value = static_cast<std::uint64_t>(*value)});
  }
  return entries;
}

void read_memory_v2(const Path& dir, CgroupStats& stats) {
  stats.memory_usage = read_number(dir / "memory.current");
  stats.memory_max_usage = read_number(dir / "memory.peak");
  stats.memory_limit = read_number(dir / "memory.max");  // "max" reads as 0
  stats.memory_stat = read_table(dir / "memory.stat");
  const auto events = read_table(dir / "memory.events");
  stats.memory_failcnt = value_of(events, "max");
  stats.oom_kills = value_of(events, "oom_kill");
}

void read_cpu_v2(const Path& dir, CgroupStats& stats) {
  const auto table = read_table(dir / "cpu.stat");
  stats.cpu_total = value_of(table, "usage_usec") * 1000;
  stats.cpu_user = value_of(table, "user_usec") * 1000;
  stats.cpu_kernel = value_of(table, "system_usec") * 1000;
  stats.throttling_periods = value_of(table, "nr_periods");
  stats.throttled_periods = value_of(table, "nr_throttled");
  stats.throttled_time = value_of(table, "throttled_usec") * 1000;
}

/// Lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
void read_io_v2(const Path& dir, CgroupStats& stats) {
  const auto text = try_read_small(dir / "io.stat");
  if (!text) return;
  for (const std::string& line : split(*text, '\n')) {
    const auto fields = split(line, ' ');
    const auto [major, minor] = split_once(fields[0], ':');
    const auto a = parse_int(major), b = parse_int(minor);
    if (!a || !b) continue;
    for (std::size_t i = 1; i < fields.size(); ++i) {
      const auto [key, digits] = split_once(fields[i], '=');
      const auto value = parse_int(digits);
      if (!value || key.empty() || (key[0] != 'r' && key[0] != 'w')) continue;
      BlkioEntry entry{.major = static_cast<std::uint64_t>(*a),
                       .minor = static_cast<std::uint64_t>(*b),
                       .op = key[0] == 'r' ? "read" : "write",
                       .value = static_cast<std::uint64_t>(*value)};
      (key.ends_with("bytes") ? stats.io_service_bytes : stats.io_serviced).push_back(std::move(entry));
    }
  }
}

}  // namespace

bool CgroupLayout::has(std::string_view controller) const {
  if (!is_v2()) return controllers.contains(controller);
  return std::ranges::find(unified_controllers, controller) != unified_controllers.end();
}

std::optional<Path> CgroupLayout::directory(std::string_view controller, std::string_view group) const {
  const Path relative = Path(group).relative_path();
  if (is_v2()) return unified / relative;
  const auto found = controllers.find(controller);
  if (found == controllers.end()) return std::nullopt;
  return found->second / relative;
}

CgroupLayout probe_cgroups() {
  CgroupLayout layout;
  std::vector<MountInfo> mounts;
  try {
    mounts = list_mounts();
  } catch (const Error&) {
    return layout;
  }
  for (const MountInfo& mount : mounts) {
    if (mount.filesystem == "cgroup2" && layout.unified.empty()) layout.unified = mount.mount_point;
    if (mount.filesystem != "cgroup") continue;
    for (const std::string& option : split(mount.super_options, ','))
      if (option != "rw" && option != "ro" && !option.starts_with("release_agent="))
        layout.controllers.emplace(option, mount.mount_point);
  }
  const bool v1 = !layout.controllers.empty();
  if (!layout.unified.empty()) layout.mode = v1 ? CgroupMode::hybrid : CgroupMode::v2;
  else if (v1) layout.mode = CgroupMode::v1;
  if (!layout.unified.empty())
    if (const auto text = try_read_small(layout.unified / "cgroup.controllers"))
      for (const std::string& name : split(trim(*text), ' '))
        if (!name.empty()) layout.unified_controllers.push_back(name);
  // Fields: subsystem, hierarchy (0: in version 2 or nowhere), groups, enabled (cgroups(7)).
  if (const auto text = try_read_small("/proc/cgroups"))
    for (const std::string& line : split(*text, '\n')) {
      const auto fields = split(line, '\t');
      if (fields.size() != 4 || fields[0].starts_with('#') || fields[3] != "1") continue;
      const bool in_v2 = std::ranges::find(layout.unified_controllers, fields[0] == "blkio" ? "io" : fields[0]) !=
                         layout.unified_controllers.end();
      if (!layout.controllers.contains(fields[0]) && !in_v2 && !layout.is_v2()) layout.unmounted.push_back(fields[0]);
    }
  return layout;
}

CgroupStats read_cgroup_stats(const CgroupLayout& layout, std::string_view group) {
  if (existing_directories(layout, group).empty()) throw Error(Errc::not_found, fmt::format("no cgroup {}", group));
  CgroupStats stats;
  if (layout.is_v2()) {
    const Path dir = *layout.directory("", group);
    read_memory_v2(dir, stats);
    read_cpu_v2(dir, stats);
    read_io_v2(dir, stats);
    stats.pids_current = read_number(dir / "pids.current");
    stats.pids_limit = read_number(dir / "pids.max");
    return stats;
  }
  if (const auto dir = layout.directory("memory", group)) read_memory_v1(*dir, stats);
  read_cpu_v1(layout, group, stats);
  if (const auto dir = layout.directory("pids", group)) {
    stats.pids_current = read_number(*dir / "pids.current");
    stats.pids_limit = read_number(*dir / "pids.max");  // "max" reads as 0
  }
  if (const auto dir = layout.directory("blkio", group)) {
    stats.io_service_bytes = read_blkio_v1(*dir / "blkio.throttle.io_service_bytes_recursive");
    stats.io_serviced = read_blkio_v1(*dir / "blkio.throttle.io_serviced_recursive");
  }
  return stats;
}

std::optional<Path> own_cgroup(const CgroupLayout& layout, std::string_view controller) {
  // Lines "number:controllers:group"; version 2 has no controllers (cgroups(7)).
  const std::string text = try_read_small("/proc/self/cgroup").value_or(std::string());
  for (const std::string& line : split(text, '\n')) {
    const auto [names, group] = split_once(split_once(line, ':').second, ':');
    if (layout.is_v2() && names.empty()) return layout.unified / Path(group).relative_path();
    const std::vector<std::string> listed = split(names, ',');
    if (std::find(listed.begin(), listed.end(), controller) != listed.end()) return layout.directory(controller, group);
  }
  return std::nullopt;
}

std::vector<pid_t> list_cgroup_pids(const CgroupLayout& layout, std::string_view group) {
  std::set<pid_t> pids;
  for (const Path& directory : existing_directories(layout, group)) collect_pids(directory, pids);
  return {pids.begin(), pids.end()};
}

std::uint64_t count_oom_kills(const CgroupLayout& layout, std::string_view group) {
  const auto dir = layout.directory("memory", group);
  if (!dir) return 0;
  return value_of(read_table(*dir / (layout.is_v2() ? "memory.events" : "memory.oom_control")), "oom_kill");
}

void kill_cgroup(const CgroupLayout& layout, std::string_view group) {
  if (!layout.unified.empty()) {
    const Path file = layout.unified / Path(group).relative_path() / "cgroup.kill";
    if (::access(file.c_str(), W_OK) == 0) write_existing(file, "1");
  }
  // Version 1 has no such file. A process may fork between the reading and the signal, hence several passes.
  for (int pass = 0; pass < 8; ++pass) {
    const auto pids = list_cgroup_pids(layout, group);
    if (pids.empty()) return;
    for (const pid_t pid : pids) ::kill(pid, SIGKILL);
  }
}

bool remove_cgroup(const CgroupLayout& layout, std::string_view group) {
  if (Path(group).relative_path().empty()) throw Error(Errc::invalid_argument, "the root cgroup cannot be removed");
  bool all = true;
  for (const Path& directory : existing_directories(layout, group)) all &= remove_directory_tree(directory);
  return all;
}

std::vector<std::string> list_child_cgroups(const CgroupLayout& layout, std::string_view parent) {
  std::set<std::string> names;
  for (const Path& directory : existing_directories(layout, parent))
    for (std::string& name : list_groups_below(directory)) names.insert(std::move(name));
  return {names.begin(), names.end()};
}

void create_cgroup(const CgroupLayout& layout, std::string_view group) {
  const Path relative = Path(group).relative_path();
  std::set<Path> roots;
  for (const auto& [controller, mount] : layout.controllers) roots.insert(mount);
  if (!layout.unified.empty()) roots.insert(layout.unified);
  for (const Path& root : roots) make_directories(root / relative);
}

void enter_cgroup(const CgroupLayout& layout, std::string_view group) {
  std::set<Path> places;
  for (const char* controller : {"memory", "pids"})
    if (const auto directory = layout.directory(controller, group)) places.insert(*directory);
  if (!layout.unified.empty()) places.insert(layout.unified / Path(group).relative_path());
  for (const Path& directory : places) write_existing(directory / "cgroup.procs", "0");
}

bool limit_cgroup_memory(const CgroupLayout& layout, std::string_view group, std::int64_t bytes) {
  const auto directory = layout.directory("memory", group);
  if (!directory) return false;
  const std::string text = bytes > 0 ? std::to_string(bytes) : layout.is_v2() ? "max" : "-1";
  try {
    if (layout.is_v2()) {
      Path at = layout.unified;
      for (const Path& part : Path(group).relative_path()) {
        write_existing(at / "cgroup.subtree_control", "+memory");
        at /= part;
      }
    }
    write_existing(*directory / (layout.is_v2() ? "memory.max" : "memory.limit_in_bytes"), text);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace gantry::sys
