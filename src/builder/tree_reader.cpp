#include "builder/tree_reader.hpp"

#include <algorithm>
#include <cerrno>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.hpp"
#include "buildcache/cache.hpp"
#include "dockerfile/path_pattern.hpp"
#include "session/go_mode.hpp"
#include "sys/file.hpp"
#include "sys/xattr.hpp"

namespace gantry::builder {

namespace {

constexpr std::size_t kMaxEntries = 100'000;

sys::Fd open_root(const buildcache::View& tree) { return sys::open_file(tree.path(), O_RDONLY | O_DIRECTORY); }

fsutil::types::Stat describe(const struct stat& st, const std::string& name) {
  fsutil::types::Stat out;
  out.set_path(name);
  out.set_mode(session::to_go_mode(st.st_mode));
  out.set_uid(st.st_uid);
  out.set_gid(st.st_gid);
  out.set_size(st.st_size);
  out.set_mod_time(st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec);
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
    out.set_devmajor(major(st.st_rdev));
    out.set_devminor(minor(st.st_rdev));
  }
  return out;
}

std::string last_component(const std::string& path) { return sys::Path("/" + path).lexically_normal().filename(); }

Error told_as_client_expects(const Error& error, const std::string& path) {
  if (error.code() != Errc::not_found) return error;
  return Error(Errc::not_found, "lstat " + path + ": no such file or directory");
}

}  // namespace

std::optional<std::string> read_tree_file(const buildcache::View& tree, const std::string& path, std::int64_t offset,
                                          std::int64_t length, std::size_t limit) {
  const sys::Fd root = open_root(tree);
  sys::Fd file;
  try {
    // Not to wait for the other end of a fifo.
    file = sys::open_in_root(root.get(), path, O_RDONLY | O_NONBLOCK);
  } catch (const Error& e) {
    if (e.code() == Errc::not_found || e.sys_errno() == ENOTDIR) return std::nullopt;
    throw;
  }
  struct stat st{};
  if (::fstat(file.get(), &st) != 0) throw Error::from_errno(errno, "stat " + path);
  if (!S_ISREG(st.st_mode)) throw Error(Errc::invalid_argument, "read " + path + ": not a regular file");
  if (offset < 0 || length < 0) throw Error(Errc::invalid_argument, "read " + path + ": invalid range");
  const std::int64_t rest = std::max<std::int64_t>(0, st.st_size - offset);
  const std::int64_t wanted = length == 0 ? rest : std::min(length, rest);
  if (wanted > static_cast<std::int64_t>(limit)) throw Error(Errc::invalid_argument, "read " + path + ": too large");
  std::string out(static_cast<std::size_t>(wanted), '\0');
  std::size_t filled = 0;
  while (filled < out.size()) {
    const ssize_t count =
        ::pread(file.get(), out.data() + filled, out.size() - filled, offset + static_cast<std::int64_t>(filled));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error::from_errno(errno, "read " + path);
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  out.resize(filled);
  return out;
}

fsutil::types::Stat stat_tree_file(const buildcache::View& tree, const std::string& path) {
  const sys::Fd root = open_root(tree);
  try {
    const sys::Fd file = sys::open_in_root(root.get(), path, O_PATH);
    struct stat st{};
    if (::fstat(file.get(), &st) != 0) throw Error::from_errno(errno, "stat " + path);
    return describe(st, last_component(path));
  } catch (const Error& e) {
    throw told_as_client_expects(e, path);
  }
}

std::vector<fsutil::types::Stat> list_tree_directory(const buildcache::View& tree, const std::string& path,
                                                     const std::string& pattern) {
  const sys::Fd root = open_root(tree);
  sys::Fd directory;
  try {
    directory = sys::open_in_root(root.get(), path, O_RDONLY | O_DIRECTORY);
  } catch (const Error& e) {
    throw told_as_client_expects(e, path);
  }
  const dockerfile::PathPattern matcher(pattern);
  std::vector<fsutil::types::Stat> out;
  for (const auto& name : sys::list_directory(sys::fd_path(directory.get()))) {
    if (!pattern.empty() && !matcher.matches(name)) continue;
    if (out.size() == kMaxEntries) throw Error(Errc::invalid_argument, "read directory " + path + ": too many entries");
    struct stat st{};
    if (::fstatat(directory.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
      throw Error::from_errno(errno, "stat " + name);
    auto& entry = out.emplace_back(describe(st, name));
    if (S_ISLNK(st.st_mode)) {
      std::string target(4096, '\0');
      const ssize_t size = ::readlinkat(directory.get(), name.c_str(), target.data(), target.size());
      target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
      entry.set_linkname(target);
    }
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.path() < b.path(); });
  return out;
}

}  // namespace gantry::builder
