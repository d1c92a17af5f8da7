#include <algorithm>
#include <map>
#include <set>

#include "base/text.hpp"
#include "runtime/spec.hpp"
#include "runtime/spec_mounts.hpp"

namespace gantry::runtime {
namespace {

std::size_t depth_of(const std::string& path) {
  return static_cast<std::size_t>(std::ranges::count(path, '/')) - (path == "/" ? 1 : 0);
}

void set_read_only(Mount& mount) {
  if (std::ranges::find(mount.options, "ro") == mount.options.end()) mount.options.emplace_back("ro");
}

std::vector<Mount> default_mounts(const ContainerSpec& spec) {
  const bool cgroup_writable = spec.privileged || spec.writable_cgroups;
  std::vector<Mount> mounts{
      {"proc", "proc", "/proc", {"nosuid", "noexec", "nodev"}},
      {"tmpfs", "tmpfs", "/dev", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
      {"devpts", "devpts", "/dev/pts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
      {"sysfs", "sysfs", "/sys", {"nosuid", "noexec", "nodev"}},
      {"cgroup", "cgroup", "/sys/fs/cgroup", {"nosuid", "noexec", "nodev"}},
      {"mqueue", "mqueue", "/dev/mqueue", {"nosuid", "noexec", "nodev"}},
  };
  if (!spec.privileged) set_read_only(mounts[3]);
  if (!cgroup_writable) set_read_only(mounts[4]);
  if (!spec.shm_source.empty()) {
    mounts.push_back({"bind", spec.shm_source, "/dev/shm", {"rbind", "rprivate"}});
  } else if (!spec.without_shm) {
    mounts.push_back({"tmpfs",
                      "shm",
                      "/dev/shm",
                      {"nosuid", "noexec", "nodev", "mode=1777", "size=" + std::to_string(spec.shm_size)}});
  }
  return mounts;
}

/// Options that exclude each other; the later one wins.
std::string_view option_family(std::string_view option) {
  if (option.find('=') != std::string_view::npos) return option.substr(0, option.find('='));
  for (const std::string_view name : {"exec", "suid", "dev", "atime", "diratime", "relatime", "strictatime", "mand"})
    if (option == name || (option.starts_with("no") && option.substr(2) == name)) return name;
  if (option == "ro" || option == "rw") return "rw";
  if (option == "sync" || option == "async") return "sync";
  return option;
}

}  // namespace

Mount bind_mount(std::string source, std::string destination, const BindOptions& options, const HostFacts& facts) {
  Mount mount{"bind", std::move(source), std::move(destination), {options.non_recursive ? "bind" : "rbind"}};
  if (options.read_only)
    mount.options.emplace_back(options.recursive_read_only && facts.recursive_read_only ? "rro" : "ro");
  mount.options.push_back(options.propagation.empty() ? "rprivate" : options.propagation);
  return mount;
}

Mount tmpfs_mount(std::string destination, const std::vector<std::string>& options) {
  std::vector<std::string> all{"noexec", "nosuid", "nodev", "rprivate"};
  all.insert(all.end(), options.begin(), options.end());
  Mount mount{"tmpfs", "tmpfs", std::move(destination), {}};
  std::set<std::string, std::less<>> seen;
  for (auto it = all.rbegin(); it != all.rend(); ++it)
    if (!it->empty() && *it != "defaults" && seen.emplace(option_family(*it)).second) mount.options.push_back(*it);
  std::ranges::reverse(mount.options);
  return mount;
}

std::vector<Mount> merge_default_mounts(const ContainerSpec& spec) {
  std::set<std::string> taken;
  for (const Mount& mount : spec.mounts) taken.insert(mount.destination);
  const bool own_dev = taken.contains("/dev");
  std::vector<Mount> all;
  for (Mount& mount : default_mounts(spec)) {
    const std::string& target = mount.destination;
    if (taken.contains(target) || (own_dev && target.starts_with("/dev/"))) continue;
    const bool stays_writable = target == "/proc" || target == "/dev" || target.starts_with("/dev/");
    if (spec.readonly_rootfs && !spec.privileged && !stays_writable) set_read_only(mount);
    all.push_back(std::move(mount));
  }
  // Parents before children: a mount would hide what was mounted below its target earlier.
  std::multimap<std::size_t, Mount> own;
  for (const Mount& mount : spec.mounts) own.emplace(depth_of(mount.destination), mount);
  if (!spec.init_path.empty())
    own.emplace(depth_of(std::string(kInitInContainer)),
                Mount{"bind", spec.init_path, std::string(kInitInContainer), {"bind", "ro"}});
  for (auto& [depth, mount] : own) all.push_back(std::move(mount));
  return all;
}

std::vector<std::string> default_masked_paths(const HostFacts& facts) {
  std::vector<std::string> paths{"/proc/acpi",
                                 "/proc/asound",
                                 "/proc/interrupts",
                                 "/proc/kcore",
                                 "/proc/keys",
                                 "/proc/latency_stats",
                                 "/proc/sched_debug",
                                 "/proc/scsi",
                                 "/proc/timer_list",
                                 "/proc/timer_stats",
                                 "/sys/devices/virtual/powercap",
                                 "/sys/firmware"};
  paths.insert(paths.end(), facts.thermal_throttle_paths.begin(), facts.thermal_throttle_paths.end());
  return paths;
}

std::vector<std::string> default_readonly_paths() {
  return {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
}

}  // namespace gantry::runtime
