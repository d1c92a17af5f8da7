#include "storage/root_access.hpp"

#include <cerrno>
#include <deque>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "storage/pack.hpp"
#include "storage/tree.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

constexpr int kMostLinks = 255;

/// Throws `missing` as a not_found whose text is final, in place of the kernel's.
[[noreturn]] void rethrow_missing(const Error& e, const std::string& path) {
  if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR)
    throw Error(Errc::not_found, fmt::format("no such file or directory: {}", path));
  if (e.sys_errno() == ELOOP) throw Error(Errc::invalid_argument, fmt::format("too many links: {}", path));
  throw e;
}

sys::Fd open_existing(int root, const std::string& path, int flags) {
  try {
    return sys::open_in_root(root, path, flags);
  } catch (const Error& e) {
    rethrow_missing(e, path);
  }
}

/// Follows every symbolic link of `path`, the last one too, as far as things exist. Clean, relative to the root.
std::string resolve(int root, const std::string& path) {
  std::deque<std::string> pending;
  for (std::string& part : split(path, '/')) pending.push_back(std::move(part));
  std::string done;
  for (int links = 0; !pending.empty();) {
    const std::string part = std::move(pending.front());
    pending.pop_front();
    const std::string next = clamp_relative(done + "/" + part);
    if (part.empty() || part == "." || part == ".." || next.empty()) {
      done = next;
      continue;
    }
    std::string target;
    try {
      const auto [directory, base] = split_path(next);
      const sys::Fd parent = sys::open_in_root(root, directory, O_PATH | O_DIRECTORY);
      const auto st = find_stat(parent.get(), base.c_str());
      if (st && S_ISLNK(st->st_mode)) target = read_link(parent.get(), base.c_str());
    } catch (const Error& e) {
      if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR && e.sys_errno() != ELOOP) throw;
    }
    if (target.empty()) {
      done = next;
      continue;
    }
    if (++links > kMostLinks) throw Error(Errc::invalid_argument, fmt::format("too many links: {}", path));
    if (target.starts_with('/')) done.clear();
    const std::vector<std::string> parts = split(target, '/');
    pending.insert(pending.begin(), parts.begin(), parts.end());
  }
  return done;
}

std::string last_component(const std::string& path) {
  std::string_view rest = path;
  while (rest.size() > 1 && rest.back() == '/') rest.remove_suffix(1);
  if (rest.empty() || rest == "/") return "/";
  return std::string(rest.substr(rest.rfind('/') + 1));
}

}  // namespace

PathStat stat_path(int root, const std::string& path) {
  // A trailing slash makes the kernel follow a link in spite of O_NOFOLLOW, which is what clients mean by it.
  const sys::Fd fd = open_existing(root, path, O_PATH | O_NOFOLLOW);
  const struct stat st = get_stat(fd.get());
  PathStat found;
  found.name = last_component(path);
  found.size = st.st_size;
  found.mode = st.st_mode;
  found.mtime = Timestamp(std::chrono::seconds(st.st_mtim.tv_sec) + std::chrono::nanoseconds(st.st_mtim.tv_nsec));
  if (S_ISLNK(st.st_mode)) found.link_target = "/" + resolve(root, path);
  return found;
}

void make_directory_in_root(int root, const std::string& path, uid_t uid, gid_t gid) {
  const std::string resolved = resolve(root, path);
  sys::Fd current(::openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!current) throw Error::from_errno(errno, "open root");
  for (const std::string& part : split(resolved, '/')) {
    if (part.empty()) continue;
    const bool made = ::mkdirat(current.get(), part.c_str(), 0755) == 0;
    if (!made && errno != EEXIST) throw Error::from_errno(errno, fmt::format("make directory {}", path));
    sys::Fd child(::openat(current.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child && (errno == ENOTDIR || errno == ELOOP))
      throw Error(Errc::conflict, fmt::format("cannot make directory {}: {} is not a directory", path, quote(part)));
    if (!child) throw Error::from_errno(errno, fmt::format("make directory {}", path));
    if (made && (::fchown(child.get(), uid, gid) != 0 || ::fchmod(child.get(), 0755) != 0))
      throw Error::from_errno(errno, fmt::format("make directory {}", path));
    current = std::move(child);
  }
}

void make_file_in_root(int root, const std::string& path) {
  const auto [directory, base] = split_path(resolve(root, path));
  if (base.empty()) return;
  make_directory_in_root(root, directory, 0, 0);
  const sys::Fd parent = sys::open_in_root(root, directory, O_PATH | O_DIRECTORY);
  if (find_stat(parent.get(), base.c_str())) return;
  const sys::Fd file(::openat(parent.get(), base.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!file && errno != EEXIST) throw Error::from_errno(errno, fmt::format("create {}", path));
}

std::optional<std::string> read_file_in_root(int root, const std::string& path, std::size_t limit) {
  try {
    const sys::Fd found = sys::open_in_root(root, path, O_PATH);
    if (!S_ISREG(get_stat(found.get()).st_mode)) return std::nullopt;
    const sys::Fd file = sys::open_file(sys::fd_path(found.get()), O_RDONLY);
    return sys::read_all(file.get(), limit);
  } catch (const Error& e) {
    if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR || e.sys_errno() == ELOOP) return std::nullopt;
    throw;
  }
}

bool is_empty_directory(int directory) {
  for (const std::string& name : list_names(directory))
    if (name != "lost+found") return false;
  return true;
}

void tar_path(int root, const std::string& path, const ByteSink& sink, const sys::IdMapping& ids) {
  const sys::Fd fd = open_existing(root, path, O_PATH | O_NOFOLLOW);
  PackOptions options;
  options.prefix = last_component(path);
  if (options.prefix == "/" || options.prefix == "..") options.prefix = ".";
  options.follow_mounts = true;
  options.ids = ids;
  pack(fd.get(), options, sink);
}

UnpackResult untar_into(int root, const std::string& path, ByteSource& tar, const UnpackOptions& options) {
  const sys::Fd found = open_existing(root, path, O_PATH);
  if (!S_ISDIR(get_stat(found.get()).st_mode))
    throw Error(Errc::invalid_argument, "extraction point is not a directory");
  // Links in the archive's way resolve against the container's root, so unpacking starts there.
  UnpackOptions below = options;
  below.directory = resolve(root, path);
  return unpack(root, tar, below);
}

}  // namespace gantry::storage
