#include "sys/mount.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::sys {
namespace {

/// Undoes the escapes \040 \011 \012 \134 of mountinfo.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 3 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '3';
    if (!escape) {
      out.push_back(text[i]);
      continue;
    }
    out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
    i += 3;
  }
  return out;
}

bool is_at_or_below(const std::string& path, const std::string& top) {
  if (!path.starts_with(top)) return false;
  return path.size() == top.size() || path[top.size()] == '/' || top == "/";
}

std::optional<MountInfo> parse_mountinfo_line(std::string_view line) {
  const std::vector<std::string> fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (fields.size() < 10 || dash - fields.begin() < 6 || fields.end() - dash < 4) return std::nullopt;
  MountInfo info;
  info.id = static_cast<std::uint64_t>(parse_int(fields[0]).value_or(0));
  info.parent = static_cast<std::uint64_t>(parse_int(fields[1]).value_or(0));
  info.root = unescape(fields[3]);
  info.mount_point = unescape(fields[4]);
  info.options = fields[5];
  info.optional = join(std::vector<std::string>(fields.begin() + 6, dash), " ");
  info.filesystem = dash[1];
  info.source = unescape(dash[2]);
  info.super_options = unescape(dash[3]);
  return info;
}

/// What the kernel says about the last failure on a file system context: "e overlay: …" lines.
std::string context_log(int context) {
  std::string text;
  char buffer[1024];
  for (int lines = 0; lines < 16; ++lines) {
    const ssize_t got = ::read(context, buffer, sizeof buffer);
    if (got <= 0) break;
    std::string_view line(buffer, static_cast<std::size_t>(got));
    if (line.size() > 2 && line[1] == ' ') line.remove_prefix(2);
    if (!text.empty()) text += "; ";
    text += trim(line);
  }
  return text;
}

[[noreturn]] void fail_context(int context, int err, std::string_view what) {
  const std::string reason = context_log(context);
  throw Error::from_errno(err, reason.empty() ? std::string(what) : fmt::format("{} ({})", what, reason));
}

Fd open_context(const std::string& filesystem) {
  Fd context(::fsopen(filesystem.c_str(), FSOPEN_CLOEXEC));
  if (!context) throw Error::from_errno(errno, fmt::format("open file system type {}", filesystem));
  return context;
}

void set_option(int context, const char* key, const char* value) {
  const unsigned command = value == nullptr ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
  if (::fsconfig(context, command, key, value, 0) != 0)
    fail_context(context, errno, fmt::format("mount option {}{}{}", key, value ? "=" : "", value ? value : ""));
}

Fd create_mount(int context, std::uint64_t attributes, std::string_view what) {
  if (::fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) fail_context(context, errno, what);
  Fd mount(::fsmount(context, FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
  if (!mount) fail_context(context, errno, what);
  return mount;
}

constexpr const char* kOverlayOptions[][2] = {{"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"}};

/// The directories of an overlay, open so that no path text limits their number: option texts end at 256 bytes each in
/// the new interface, and at one page together in the old one.
struct OverlayDirectories {
  explicit OverlayDirectories(const OverlaySpec& spec) {
    for (const Path& path : spec.lower) {
      lower.push_back(open_file(path, O_RDONLY | O_DIRECTORY));
      if (spec.lower_ids < 0) continue;
      mapped.push_back(clone_mapped_mount(lower.back().get(), spec.lower_ids));
      // Overlayfs takes no O_PATH descriptors.
      lower.back() = Fd(::openat(mapped.back().get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!lower.back()) throw Error::from_errno(errno, "open " + path.string());
    }
    if (spec.upper.empty()) return;
    upper = open_file(spec.upper, O_RDONLY | O_DIRECTORY);
    work = open_file(spec.work, O_RDONLY | O_DIRECTORY);
  }
  std::vector<Fd> mapped;  // keeps the mounts that `lower` is open in
  std::vector<Fd> lower;
  Fd upper;
  Fd work;
};

Fd make_overlay(const OverlayDirectories& directories, bool unsafe_and_fast) {
  Fd context = open_context("overlay");
  auto set_directory = [&](const char* key, const Fd& fd) {
    if (::fsconfig(context.get(), FSCONFIG_SET_FD, key, nullptr, fd.get()) != 0)
      fail_context(context.get(), errno, fmt::format("mount overlay: {}", key));
  };
  set_option(context.get(), "source", "overlay");
  for (const auto& [key, value] : kOverlayOptions) set_option(context.get(), key, value);
  if (unsafe_and_fast) set_option(context.get(), "volatile", nullptr);
  for (const Fd& fd : directories.lower) set_directory("lowerdir+", fd);
  if (directories.upper) {
    set_directory("upperdir", directories.upper);
    set_directory("workdir", directories.work);
  }
  return create_mount(context.get(), 0, "mount overlay");
}

void mount_overlay_classic(const OverlayDirectories& directories, bool unsafe_and_fast, const Path& target) {
  std::string data = "lowerdir=";
  for (const Fd& fd : directories.lower)
    fmt::format_to(std::back_inserter(data), "{}/proc/self/fd/{}", data.back() == '=' ? "" : ":", fd.get());
  if (directories.upper)
    fmt::format_to(std::back_inserter(data), ",upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}",
                   directories.upper.get(), directories.work.get());
  for (const auto& [key, value] : kOverlayOptions) fmt::format_to(std::back_inserter(data), ",{}={}", key, value);
  if (unsafe_and_fast) data += ",volatile";
  mount_classic("overlay", target, "overlay", 0, data);
}

}  // namespace

std::vector<MountInfo> list_mounts(const std::optional<Path>& below) {
  const std::string top = below ? below->lexically_normal().string() : "/";
  std::vector<MountInfo> all;
  const std::string text = read_file("/proc/thread-self/mountinfo");
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    auto info = parse_mountinfo_line(std::string_view(text).substr(at, end - at));
    at = end + 1;
    if (info && is_at_or_below(info->mount_point.string(), top)) all.push_back(std::move(*info));
  }
  return all;
}

bool is_mount_point(const Path& path) {
  struct statx st{};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    throw Error::from_errno(errno, fmt::format("stat {}", path.string()));
  }
  return (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0 && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

bool overlay_takes_descriptors() {
  static const bool known = [] {
    const Fd context(::fsopen("overlay", FSOPEN_CLOEXEC));
    const Fd any(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return context && ::fsconfig(context.get(), FSCONFIG_SET_FD, "lowerdir+", nullptr, any.get()) == 0;
  }();
  return known;
}

void mount_overlay(const OverlaySpec& spec, const Path& target) {
  const OverlayDirectories directories(spec);
  if (spec.classic || !overlay_takes_descriptors()) mount_overlay_classic(directories, spec.unsafe_and_fast, target);
  else attach_mount(make_overlay(directories, spec.unsafe_and_fast).get(), target);
}

Fd open_overlay(const OverlaySpec& spec, const Path& scratch) {
  const OverlayDirectories directories(spec);
  if (!spec.classic && overlay_takes_descriptors()) return make_overlay(directories, spec.unsafe_and_fast);
  mount_overlay_classic(directories, spec.unsafe_and_fast, scratch);
  const TemporaryMount until_open(scratch);
  return open_file(scratch, O_RDONLY | O_DIRECTORY);
}

Fd make_mount(const std::string& filesystem, const std::vector<std::string>& options, std::uint64_t attributes) {
  const Fd context = open_context(filesystem);
  for (const std::string& option : options) {
    const auto [key, value] = split_once(option, '=');
    const bool flag = key.size() == option.size();
    set_option(context.get(), std::string(key).c_str(), flag ? nullptr : std::string(value).c_str());
  }
  return create_mount(context.get(), attributes, fmt::format("mount {}", filesystem));
}

Fd clone_mount(int source, bool recursive) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  Fd tree(::open_tree(source, "", flags));
  if (!tree) throw Error::from_errno(errno, "clone mount");
  return tree;
}

Fd clone_mapped_mount(int source, int user_namespace) {
  Fd mount = clone_mount(source, false);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<std::uint64_t>(user_namespace);
  if (::mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
    throw Error::from_errno(errno, "map the owners of a mount (does this file system allow idmapped mounts?)");
  return mount;
}

void set_mount_attributes(int mount, std::uint64_t set, std::uint64_t clear, std::uint64_t propagation,
                          bool recursive) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  attributes.propagation = propagation;
  const unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  if (::mount_setattr(mount, "", flags, &attributes, sizeof attributes) != 0)
    throw Error::from_errno(errno, "set mount attributes");
}

void attach_mount(int mount, int target) {
  if (::move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    throw Error::from_errno(errno, "attach mount");
}

void attach_mount(int mount, const Path& target) {
  const Fd fd = open_file(target, O_PATH | O_NOFOLLOW);
  try {
    attach_mount(mount, fd.get());
  } catch (Error& e) {
    e.prefix(target.string());
    throw;
  }
}

void mount_classic(const std::string& source, const Path& target, const std::string& filesystem, unsigned long flags,
                   const std::string& data) {
  const char* type = filesystem.empty() ? nullptr : filesystem.c_str();
  if (::mount(source.c_str(), target.c_str(), type, flags, data.empty() ? nullptr : data.c_str()) != 0)
    throw Error::from_errno(errno,
                            fmt::format("mount {} on {}", filesystem.empty() ? source : filesystem, target.string()));
}

bool unmount(const Path& path, Unmount how) {
  const int flags = UMOUNT_NOFOLLOW | (how == Unmount::lazy ? MNT_DETACH : 0);
  if (::umount2(path.c_str(), flags) == 0) return true;
  // EINVAL: not a mount point.
  if (errno == EINVAL || errno == ENOENT || errno == ENOTDIR) return false;
  if (errno == EBUSY) throw Error(Errc::conflict, fmt::format("{} is in use", path.string()));
  throw Error::from_errno(errno, fmt::format("unmount {}", path.string()));
}

std::size_t unmount_all(const Path& path) {
  std::vector<MountInfo> mounts = list_mounts(path);
  std::size_t count = 0;
  // A later line may be mounted on top of an earlier one.
  for (auto it = mounts.rbegin(); it != mounts.rend(); ++it) count += unmount(it->mount_point, Unmount::lazy) ? 1 : 0;
  return count;
}

TemporaryMount::~TemporaryMount() { (void)::umount2(path_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW); }

}  // namespace gantry::sys
