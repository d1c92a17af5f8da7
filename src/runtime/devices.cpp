#include "runtime/devices.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <set>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {
namespace {

constexpr std::int64_t kMaxMajor = (1 << 12) - 1;  // linux/kdev_t.h: 12 and 20 bits
constexpr std::int64_t kMaxMinor = (1 << 20) - 1;
constexpr int kMaxDepth = 16;
constexpr std::size_t kMaxDevices = 16384;

std::optional<Device> device_at(const std::string& path, const struct stat& st, std::string path_in_container) {
  if (!S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode)) return std::nullopt;
  (void)path;
  return Device{.path = std::move(path_in_container),
                .type = S_ISBLK(st.st_mode) ? 'b' : 'c',
                .major = major(st.st_rdev),
                .minor = minor(st.st_rdev),
                .file_mode = st.st_mode & 07777,
                .uid = st.st_uid,
                .gid = st.st_gid};
}

/// Adds every device node below `host`; links are not followed.
void collect_devices(const std::string& host, const std::string& inside, const std::set<std::string>& skipped,
                     int depth, std::vector<Device>& out) {
  if (depth > kMaxDepth) return;
  std::vector<std::string> names;
  try {
    names = sys::list_directory(host);
  } catch (const Error& e) {
    if (e.code() == Errc::not_found || e.code() == Errc::forbidden) return;
    throw;
  }
  std::ranges::sort(names);
  for (const std::string& name : names) {
    if (skipped.contains(name) || name.starts_with(".udev")) continue;
    const std::string path = host + "/" + name;
    struct stat st{};
    if (::lstat(path.c_str(), &st) != 0) continue;  // gone meanwhile
    if (S_ISDIR(st.st_mode)) collect_devices(path, inside + "/" + name, skipped, depth + 1, out);
    else if (auto device = device_at(path, st, inside + "/" + name); device && out.size() < kMaxDevices)
      out.push_back(std::move(*device));
  }
}

[[noreturn]] void gathering_failed(const std::string& path, std::string_view why) {
  throw Error(Errc::invalid_argument,
              fmt::format("error gathering device information while adding custom device {}: {}", quote(path), why));
}

DeviceRule rule_for(const Device& device, const std::string& access) {
  return {.allow = true, .type = device.type, .major = device.major, .minor = device.minor, .access = access};
}

void resolve_list(std::vector<BlockDeviceLimit>& limits) {
  for (BlockDeviceLimit& limit : limits) {
    struct stat st{};
    if (::stat(limit.path.c_str(), &st) != 0)
      throw Error(Errc::invalid_argument, fmt::format("stat {}: {}", limit.path, to_lower(std::strerror(errno))));
    if (!S_ISBLK(st.st_mode)) throw Error(Errc::invalid_argument, fmt::format("{} is not a block device", limit.path));
    limit.major = major(st.st_rdev);
    limit.minor = minor(st.st_rdev);
  }
}

}  // namespace

void validate_device_request(const DeviceRequest& request) {
  const auto bad_path = [](const std::string& path) {
    if (!path.starts_with('/') || path.find('\0') != std::string::npos) return true;
    const auto parts = split(path, '/');
    return std::ranges::find(parts, "..") != parts.end();
  };
  if (request.path_on_host.empty() || bad_path(request.path_on_host))
    throw Error(Errc::invalid_argument,
                fmt::format("invalid device: PathOnHost {} is not an absolute path", quote(request.path_on_host)));
  if (!request.path_in_container.empty() && bad_path(request.path_in_container))
    throw Error(Errc::invalid_argument, fmt::format("invalid device: PathInContainer {} is not an absolute path",
                                                    quote(request.path_in_container)));
  std::set<char> seen;
  for (const char c : request.permissions)
    if ((c != 'r' && c != 'w' && c != 'm') || !seen.insert(c).second)
      throw Error(Errc::invalid_argument, fmt::format("invalid device: CgroupPermissions {} is not made of r, w and m",
                                                      quote(request.permissions)));
}

ResolvedDevices resolve_device_blocking(const DeviceRequest& request) {
  validate_device_request(request);
  const std::string inside = request.path_in_container.empty() ? request.path_on_host : request.path_in_container;
  const std::string access = request.permissions.empty() ? "rwm" : request.permissions;
  char resolved[PATH_MAX];
  struct stat st{};
  if (::realpath(request.path_on_host.c_str(), resolved) == nullptr || ::lstat(resolved, &st) != 0)
    gathering_failed(request.path_on_host, to_lower(std::strerror(errno)));
  ResolvedDevices out;
  if (auto device = device_at(resolved, st, inside)) {
    out.devices.push_back(std::move(*device));
  } else if (S_ISDIR(st.st_mode)) {
    collect_devices(resolved, inside, {}, 0, out.devices);
  }
  if (out.devices.empty()) gathering_failed(request.path_on_host, "not a device node");
  for (const Device& device : out.devices) out.rules.push_back(rule_for(device, access));
  return out;
}

std::vector<Device> list_host_devices_blocking() {
  // What a container has of its own (runtime-spec's default devices and mounts) must not be replaced by the host's.
  static const std::set<std::string> skipped{"pts",         "shm",  "fd",    "mqueue", "console", ".lxc",
                                             ".lxd-mounts", "ptmx", "stdin", "stdout", "stderr"};
  std::vector<Device> devices;
  collect_devices("/dev", "/dev", skipped, 0, devices);
  return devices;
}

DeviceRule parse_device_rule(std::string_view text) {
  static const std::regex form(R"(^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$)");
  std::match_results<std::string_view::const_iterator> match;
  const auto reject = [&] {
    throw Error(Errc::invalid_argument, fmt::format("invalid device cgroup rule format: '{}'", text));
  };
  if (text.size() > 64 || !std::regex_match(text.begin(), text.end(), match, form)) reject();
  const auto number = [&](int group, std::int64_t max) -> std::optional<std::int64_t> {
    if (match[group] == "*") return std::nullopt;
    const auto value = parse_int(match[group].str());
    if (!value || *value > max) reject();
    return value;
  };
  DeviceRule rule;
  rule.type = *match[1].first;
  rule.major = number(2, kMaxMajor);
  rule.minor = number(3, kMaxMinor);
  rule.access = match[4].str();
  return rule;
}

void resolve_block_devices_blocking(Resources& resources) {
  resolve_list(resources.blkio_weight_device);
  resolve_list(resources.blkio_read_bps);
  resolve_list(resources.blkio_write_bps);
  resolve_list(resources.blkio_read_iops);
  resolve_list(resources.blkio_write_iops);
}

}  // namespace gantry::runtime
