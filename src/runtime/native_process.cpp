#include "runtime/native_process.hpp"

#include <algorithm>
#include <map>

#include <sys/resource.h>

#include "sys/capability.hpp"

namespace gantry::runtime {
namespace {

const std::map<std::string_view, int> kResources{
    {"as", RLIMIT_AS},           {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
    {"data", RLIMIT_DATA},       {"fsize", RLIMIT_FSIZE},       {"locks", RLIMIT_LOCKS},
    {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
    {"nofile", RLIMIT_NOFILE},   {"nproc", RLIMIT_NPROC},       {"rss", RLIMIT_RSS},
    {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
    {"stack", RLIMIT_STACK}};

bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }

bool acceptable(const ProcessSpec& process) {
  const auto bad_entry = [](const std::string& entry) {
    const std::size_t sign = entry.find('=');
    return sign == std::string::npos || sign == 0 || has_nul(entry);
  };
  return !process.args.empty() && process.cwd.starts_with('/') && !has_nul(process.cwd) &&
         std::ranges::none_of(process.args, has_nul) && std::ranges::none_of(process.env, bad_entry);
}

std::optional<std::uint64_t> capability_mask(const std::vector<std::string>& names) {
  const std::vector<std::string_view>& known = sys::capability_names();
  std::uint64_t mask = 0;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(known, name);
    if (found == known.end()) return std::nullopt;
    mask |= std::uint64_t{1} << (found - known.begin());
  }
  return mask;
}

std::uint64_t limit_value(std::int64_t value) { return value < 0 ? RLIM_INFINITY : static_cast<std::uint64_t>(value); }

/// runc does the same to an environment without a HOME, or with an empty one.
void set_home(std::vector<std::string>& env, const std::string& home) {
  const auto found = std::ranges::find_if(env, [](const std::string& entry) { return entry.starts_with("HOME="); });
  if (found == env.end()) env.push_back("HOME=" + home);
  else if (*found == "HOME=") *found += home;
}

}  // namespace

std::optional<protocol::NativeProcess> make_native_process(const ProcessSpec& process, const std::string& home) {
  const auto mask = capability_mask(process.capabilities);
  if (!acceptable(process) || !mask || has_nul(home)) return std::nullopt;
  protocol::NativeProcess out;
  out.args = process.args;
  out.env = process.env;
  set_home(out.env, home);
  out.directory = process.cwd;
  out.uid = process.user.uid;
  out.gid = process.user.gid;
  out.groups = process.user.additional_gids;
  // Inheritable and ambient stay empty: a program of another user gains nothing by execve (CVE-2022-24769).
  out.capabilities.bounding = out.capabilities.permitted = out.capabilities.effective = *mask;
  out.no_new_privileges = process.no_new_privileges;
  out.oom_score_adj = process.oom_score_adj;
  for (const Ulimit& limit : process.ulimits) {
    const auto resource = kResources.find(limit.name);
    if (resource == kResources.end()) return std::nullopt;
    out.limits.push_back(
        {static_cast<std::uint32_t>(resource->second), limit_value(limit.soft), limit_value(limit.hard)});
  }
  return out;
}

void set_cgroups(protocol::NativeProcess& process, const sys::CgroupLayout& layout, const std::string& group) {
  for (const auto& [name, mount] : layout.controllers) {
    std::string directory = mount.string() + group;
    if (std::ranges::find(process.cgroups_v1, directory) == process.cgroups_v1.end())
      process.cgroups_v1.push_back(std::move(directory));
  }
  if (layout.unified.empty()) return;
  process.cgroup_v2_mount = layout.unified.string();
  process.cgroup_v2 = process.cgroup_v2_mount + group;
}

}  // namespace gantry::runtime
