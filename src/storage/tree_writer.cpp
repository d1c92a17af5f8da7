#include "storage/tree_writer.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "storage/tar_reader.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::storage {
namespace {

constexpr std::size_t kOpenDirectories = 256;
constexpr std::size_t kImplicitDirectories = 65536;
constexpr int kAttempts = 16;  // someone in the container may put a thing in the way again and again

[[noreturn]] void fail_errno(int err, std::string_view what, const std::string& path) {
  throw Error::from_errno(err, fmt::format("{} {}", what, shown_name(path)));
}

[[noreturn]] void fail_in_the_way(const std::string& path) {
  throw Error(Errc::conflict, fmt::format("{} keeps changing while it is written", shown_name(path)));
}

/// Attributes that not every file system or type of file can hold, and that are no reason to fail.
bool may_be_missing(const std::string& name, int err) {
  if (err == ENOTSUP) return true;
  if (name.starts_with("system.posix_acl_")) return err == EINVAL || err == EPERM;
  return name.starts_with("user.") && err == EPERM;
}

/// Version 3 of the capability attribute names the owner of a user namespace, which has no meaning on another
/// machine: written as version 2. Source: linux/capability.h, struct vfs_ns_cap_data.
sys::Xattr without_namespace(sys::Xattr attribute) {
  constexpr std::size_t kVersion2Size = 20;
  constexpr std::size_t kVersion3Size = 24;
  if (attribute.name != "security.capability" || attribute.value.size() != kVersion3Size) return attribute;
  attribute.value.resize(kVersion2Size);
  attribute.value[3] = 2;
  return attribute;
}

}  // namespace

TreeWriter::TreeWriter(int root, const UnpackOptions& options) : root_(root), options_(options) {}

int TreeWriter::remember(const std::string& path, sys::Fd fd) {
  if (directories_.size() >= kOpenDirectories) directories_.clear();
  return (directories_[path] = std::move(fd)).get();
}

int TreeWriter::directory(const std::string& path, int links_left) {
  if (path.empty()) return root_;
  if (const auto known = directories_.find(path); known != directories_.end()) return known->second.get();
  try {
    return remember(path, sys::open_in_root(root_, path, O_PATH | O_DIRECTORY));
  } catch (const Error& e) {
    if (e.sys_errno() == ENOTDIR)
      throw Error(Errc::invalid_argument, fmt::format("a parent of {} is not a directory", shown_name(path + "/")));
    if (e.sys_errno() == ELOOP)
      throw Error(Errc::invalid_argument, fmt::format("too many symbolic links on the way to {}", shown_name(path)));
    if (e.sys_errno() != ENOENT) throw;
  }
  return make_missing_directory(path, links_left);
}

int TreeWriter::make_missing_directory(const std::string& path, int links_left) {
  const auto [parent_path, base] = split_path(path);
  const int parent = directory(parent_path, links_left);
  if (::mkdirat(parent, base.c_str(), 0755) == 0) {
    sys::Fd made = open_subdirectory(parent, base.c_str());
    if (::fchmod(made.get(), 0755) != 0) fail_errno(errno, "chmod", path);
    if (!options_.ids.empty() && ::fchown(made.get(), options_.ids.host_uid(0), options_.ids.host_gid(0)) != 0)
      fail_errno(errno, "chown", path);
    ++result_.entries;
    if (result_.implicit.size() < kImplicitDirectories) result_.implicit.push_back(path);
    return remember(path, std::move(made));
  }
  if (errno != EEXIST) fail_errno(errno, "make directory", path);
  const auto st = find_stat(parent, base.c_str());
  if (!st || !S_ISLNK(st->st_mode)) {
    // A whiteout of this layer gives way to a directory that hides what was below.
    if (!st || !is_whiteout(*st) || options_.mode != UnpackMode::layer) fail_in_the_way(path);
    make_directory(path, Metadata{0755, 0, 0, {}, {}});
    return directory(path, links_left);
  }
  // A link to something that does not exist yet, as /var/run in a layer that has no /run: make its target.
  if (links_left == 0)
    throw Error(Errc::invalid_argument, fmt::format("too many symbolic links on the way to {}", shown_name(path)));
  const std::string target = read_link(parent, base.c_str());
  const std::string inside =
      clamp_relative(target.starts_with('/') ? target : fmt::format("{}/{}", parent_path, target));
  sys::Fd made(::openat(directory(inside, links_left - 1), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!made) fail_errno(errno, "open", inside);
  return remember(path, std::move(made));
}

TreeWriter::Cleared TreeWriter::clear(int parent, const std::string& base, const std::string& path,
                                      bool for_directory) {
  const auto st = find_stat(parent, base.c_str());
  if (!st) return Cleared::nothing;
  const bool is_directory = S_ISDIR(st->st_mode);
  if (is_directory && for_directory) return Cleared::kept_directory;
  if (options_.no_overwrite_dir_non_dir && is_directory != for_directory) {
    const std::string shown = shown_name("/" + path);
    if (is_directory)
      throw Error(Errc::internal, fmt::format("cannot overwrite directory {} with non-directory {}", shown, shown));
    throw Error(Errc::internal, fmt::format("cannot overwrite non-directory {} with directory {}", shown, shown));
  }
  replaced_ = true;
  directories_.clear();  // paths may lead elsewhere now
  if (is_directory) {
    sys::remove_tree(sys::entry_path(parent, base));
  } else if (::unlinkat(parent, base.c_str(), 0) != 0 && errno != ENOENT) {
    fail_errno(errno, "remove", path);
  }
  return is_whiteout(*st) ? Cleared::whiteout : Cleared::other;
}

void TreeWriter::set_owner_and_mode(int fd, const Metadata& metadata) {
  // In this order: chown(2) clears the set-id bits.
  if (::fchown(fd, owner(metadata), group(metadata)) != 0) throw Error::from_errno(errno, "chown");
  if (::fchmod(fd, metadata.mode) != 0) throw Error::from_errno(errno, "chmod");
}

void TreeWriter::set_xattrs(int directory, const std::string& base, int fd, const Metadata& metadata) {
  for (const sys::Xattr& attribute : metadata.xattrs) {
    if (!is_allowed_xattr(attribute.name)) continue;
    try {
      if (fd >= 0) sys::set_xattr(fd, without_namespace(attribute));
      else sys::set_xattr(directory, base, without_namespace(attribute));
    } catch (const Error& e) {
      if (!may_be_missing(attribute.name, e.sys_errno())) throw;
    }
  }
}

void TreeWriter::make_directory(const std::string& path, const Metadata& metadata) {
  const auto [parent_path, base] = split_path(path);
  bool hide_below = false;
  for (int attempt = 0;; ++attempt) {
    const int parent = directory(parent_path);
    if (::mkdirat(parent, base.c_str(), 0700) == 0) {
      ++result_.entries;
      break;
    }
    if (errno != EEXIST) fail_errno(errno, "make directory", path);
    const sys::Fd held(::openat(parent, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));  // clear() closes the cached one
    const Cleared cleared = clear(held.get(), base, path, true);
    if (cleared == Cleared::kept_directory) break;
    hide_below = hide_below || cleared == Cleared::whiteout;
    if (attempt == kAttempts) fail_in_the_way(path);
  }
  const sys::Fd made = open_subdirectory(directory(parent_path), base.c_str());
  set_owner_and_mode(made.get(), metadata);
  set_xattrs(-1, base, made.get(), metadata);
  if (hide_below && options_.mode == UnpackMode::layer) set_opaque(made.get());
  times_.emplace_back(path, metadata.mtime);
}

void TreeWriter::make_file(const std::string& path, const Metadata& metadata, const std::function<void(int)>& write) {
  const auto [parent_path, base] = split_path(path);
  sys::Fd file;
  int parent = -1;
  for (int attempt = 0;; ++attempt) {
    parent = directory(parent_path);
    file =
        sys::Fd(::openat(parent, base.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600));
    if (file) break;
    if (errno != EEXIST) fail_errno(errno, "create", path);
    if (attempt == kAttempts) fail_in_the_way(path);
    const sys::Fd held(::openat(parent, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    clear(held.get(), base, path, false);
  }
  try {
    write(file.get());
    set_owner_and_mode(file.get(), metadata);
    set_xattrs(-1, base, file.get(), metadata);
    const timespec times[2] = {{0, UTIME_NOW}, metadata.mtime};
    if (::futimens(file.get(), times) != 0) fail_errno(errno, "set time of", path);
  } catch (Error& e) {
    (void)::unlinkat(parent, base.c_str(), 0);
    e.add_context(shown_name(path));
    throw;
  }
  ++result_.entries;
  result_.bytes += static_cast<std::uint64_t>(get_stat(file.get()).st_size);
}

void TreeWriter::make_symlink(const std::string& path, const std::string& target, const Metadata& metadata) {
  const auto [parent_path, base] = split_path(path);
  int parent = -1;
  for (int attempt = 0;; ++attempt) {
    parent = directory(parent_path);
    if (::symlinkat(target.c_str(), parent, base.c_str()) == 0) break;
    if (errno == ENAMETOOLONG || errno == ENOENT)
      throw Error(Errc::invalid_argument, fmt::format("{}: invalid symbolic link target", shown_name(path)));
    if (errno != EEXIST) fail_errno(errno, "create symbolic link", path);
    if (attempt == kAttempts) fail_in_the_way(path);
    const sys::Fd held(::openat(parent, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    clear(held.get(), base, path, false);
  }
  ++result_.entries;
  if (::fchownat(parent, base.c_str(), owner(metadata), group(metadata), AT_SYMLINK_NOFOLLOW) != 0)
    fail_errno(errno, "chown", path);
  set_xattrs(parent, base, -1, metadata);
  const timespec times[2] = {{0, UTIME_NOW}, metadata.mtime};
  if (::utimensat(parent, base.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) fail_errno(errno, "set time of", path);
}

void TreeWriter::make_hardlink(const std::string& path, const std::string& target) {
  const auto [target_directory, target_base] = split_path(target);
  auto refuse = [&](std::string_view why) {
    throw Error(Errc::invalid_argument,
                fmt::format("tar entry {}: invalid hard link to {}: {}", shown_name(path), shown_name(target), why));
  };
  if (target_base.empty()) refuse("it is the root");
  const auto [parent_path, base] = split_path(path);
  for (int attempt = 0;; ++attempt) {
    const sys::Fd parent(::openat(directory(parent_path), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    const int from = directory(target_directory);
    const auto source = find_stat(from, target_base.c_str());
    if (!source) refuse("it does not exist");
    if (S_ISDIR(source->st_mode)) refuse("it is a directory");
    if (is_whiteout(*source)) refuse("it is a whiteout");
    if (::linkat(from, target_base.c_str(), parent.get(), base.c_str(), 0) == 0) break;
    if (errno == EXDEV) refuse("it is on another file system");
    if (errno != EEXIST) fail_errno(errno, "create hard link", path);
    const auto there = find_stat(parent.get(), base.c_str());
    if (there && there->st_ino == source->st_ino && there->st_dev == source->st_dev) return;
    if (attempt == kAttempts) fail_in_the_way(path);
    clear(parent.get(), base, path, false);
  }
  ++result_.entries;
}

void TreeWriter::make_node(const std::string& path, mode_t type, dev_t device, const Metadata& metadata) {
  const auto [parent_path, base] = split_path(path);
  int parent = -1;
  for (int attempt = 0;; ++attempt) {
    parent = directory(parent_path);
    if (::mknodat(parent, base.c_str(), type | 0600, device) == 0) break;
    if (errno != EEXIST) fail_errno(errno, "create device", path);
    if (attempt == kAttempts) fail_in_the_way(path);
    const sys::Fd held(::openat(parent, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    clear(held.get(), base, path, false);
  }
  ++result_.entries;
  if (type == S_IFCHR && device == 0) return;  // a whiteout
  const sys::Fd node(::openat(parent, base.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!node) fail_errno(errno, "open", path);
  if ((get_stat(node.get()).st_mode & S_IFMT) != type) fail_in_the_way(path);
  if (::fchownat(node.get(), "", owner(metadata), group(metadata), AT_EMPTY_PATH) != 0)
    fail_errno(errno, "chown", path);
  if (::chmod(sys::fd_path(node.get()).c_str(), metadata.mode) != 0) fail_errno(errno, "chmod", path);
  set_xattrs(parent, base, -1, metadata);
  const timespec times[2] = {{0, UTIME_NOW}, metadata.mtime};
  if (::utimensat(parent, base.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) fail_errno(errno, "set time of", path);
}

void TreeWriter::make_whiteout(const std::string& path) {
  const auto [parent_path, base] = split_path(path);
  const int parent = directory(parent_path);
  const auto st = find_stat(parent, base.c_str());
  if (!st) make_node(path, S_IFCHR, 0, {});
  else if (S_ISDIR(st->st_mode)) set_opaque(open_subdirectory(parent, base.c_str()).get());
}

void TreeWriter::make_opaque(const std::string& path) {
  if (path.empty()) result_.opaque_root = true;
  else set_opaque(directory(path));
}

UnpackResult TreeWriter::finish() {
  directories_.clear();
  for (const auto& [path, mtime] : times_) {
    const auto [parent_path, base] = split_path(path);
    const timespec times[2] = {{0, UTIME_NOW}, mtime};
    try {
      const sys::Fd parent = sys::open_in_root(root_, parent_path, O_PATH | O_DIRECTORY);
      if (::utimensat(parent.get(), base.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0 && errno != ENOENT)
        fail_errno(errno, "set time of", path);
    } catch (const Error& e) {
      // A later entry replaced one of its parents.
      if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR && e.sys_errno() != ELOOP) throw;
    }
  }
  if (replaced_ && options_.mode == UnpackMode::layer) {
    const TreeCount count = count_tree(root_);
    result_.entries = count.entries;
    result_.bytes = count.bytes;
  }
  return std::move(result_);
}

}  // namespace gantry::storage
