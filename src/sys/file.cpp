#include "sys/file.hpp"

#include <cerrno>
#include <cstdio>
#include <set>

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gantry::sys {
namespace {

Fd open_resolved(int root, const std::string& path, int flags, mode_t mode, std::uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve | RESOLVE_NO_MAGICLINKS;
  for (;;) {
    const long fd = ::syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how);
    if (fd >= 0) return Fd(static_cast<int>(fd));
    // EAGAIN: a rename elsewhere raced with "..", and the kernel cannot prove that we stayed inside (openat2(2)).
    if (errno != EINTR && errno != EAGAIN) throw Error::from_errno(errno, fmt::format("open {}", path));
  }
}

/// Calls `visit(dirfd, name, stat)` for every entry of `dir`, which it closes.
template <class Visit>
void for_each_entry(Fd dir, const Path& name_for_errors, Visit visit) {
  DIR* stream = ::fdopendir(dir.get());
  if (stream == nullptr) throw Error::from_errno(errno, fmt::format("read directory {}", name_for_errors.string()));
  (void)dir.release();
  struct Closer {
    DIR* stream;
    ~Closer() { ::closedir(stream); }
  } closer{stream};
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream);
    if (entry == nullptr) {
      if (errno != 0) throw Error::from_errno(errno, fmt::format("read directory {}", name_for_errors.string()));
      return;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") visit(::dirfd(stream), entry->d_name);
  }
}

constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

/// Trees of containers are as deep as someone inside wanted them to be, while every level of a walk holds a descriptor
/// and a stack frame.
constexpr int kDeepestWalk = 256;
constexpr int kRemovalAttempts = 8;  // of a directory in which somebody still makes files

/// One remove_tree().
struct Removal {
  const Path& path;
  dev_t device = 0;
  int top = -1;  // the tree's own directory
  std::uint64_t moved = 0;
  std::uint64_t freed = 0;
};

void remove_below(Removal& removal, Fd dir, int depth);

void remove_entry(Removal& removal, int parent, const char* name, int depth) {
  struct stat st{};
  if (::fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;
    throw Error::from_errno(errno, fmt::format("stat {} below {}", name, removal.path.string()));
  }
  if (!S_ISDIR(st.st_mode)) {
    if (::unlinkat(parent, name, 0) != 0 && errno != ENOENT)
      throw Error::from_errno(errno, fmt::format("remove {} below {}", name, removal.path.string()));
    if (st.st_nlink == 1) removal.freed += static_cast<std::uint64_t>(st.st_size);
    return;
  }
  if (st.st_dev != removal.device)
    throw Error(Errc::conflict,
                fmt::format("{} below {} is a mount point: unmount it first", name, removal.path.string()));
  if (depth == kDeepestWalk) {
    const std::string moved = fmt::format(".removing-{}", removal.moved++);
    if (::renameat(parent, name, removal.top, moved.c_str()) != 0)
      throw Error::from_errno(errno, fmt::format("remove deep directory {} below {}", name, removal.path.string()));
    return;
  }
  Fd dir(::openat(parent, name, kOpenDirectory));
  if (!dir) throw Error::from_errno(errno, fmt::format("open {} below {}", name, removal.path.string()));
  remove_below(removal, std::move(dir), depth + 1);
  if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
    throw Error::from_errno(errno, fmt::format("remove directory {} below {}", name, removal.path.string()));
}

void remove_below(Removal& removal, Fd dir, int depth) {
  for_each_entry(std::move(dir), removal.path,
                 [&](int at, const char* name) { remove_entry(removal, at, name, depth); });
}

std::uint64_t size_below(Fd dir, const Path& path, dev_t device, std::set<ino_t>& linked, int depth) {
  std::uint64_t total = 0;
  for_each_entry(std::move(dir), path, [&](int at, const char* name) {
    struct stat st{};
    if (::fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_dev != device) return;
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1 && !linked.insert(st.st_ino).second) return;
    if (!S_ISDIR(st.st_mode)) total += static_cast<std::uint64_t>(st.st_size);
    if (!S_ISDIR(st.st_mode) || depth == kDeepestWalk) return;
    Fd child(::openat(at, name, kOpenDirectory));
    if (child) total += size_below(std::move(child), path, device, linked, depth + 1);
  });
  return total;
}

}  // namespace

Fd open_file(const Path& path, int flags, mode_t mode) {
  for (;;) {
    Fd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
    if (fd) return fd;
    if (errno != EINTR) throw Error::from_errno(errno, fmt::format("open {}", path.string()));
  }
}

Fd open_in_root(int root, const std::string& path, int flags, mode_t mode) {
  return open_resolved(root, path, flags, mode, RESOLVE_IN_ROOT);
}

Fd open_beneath(int root, const std::string& path, int flags, mode_t mode) {
  return open_resolved(root, path, flags, mode, RESOLVE_BENEATH);
}

std::string read_all(int fd, std::size_t limit) {
  std::string out;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error::from_errno(errno, "read");
    if (got == 0) return out;
    if (out.size() + static_cast<std::size_t>(got) > limit)
      throw Error(Errc::invalid_argument, fmt::format("file is larger than {} bytes", limit));
    out.append(buffer, static_cast<std::size_t>(got));
  }
}

std::string read_file(const Path& path, std::size_t limit) {
  Fd fd = open_file(path, O_RDONLY);
  try {
    return read_all(fd.get(), limit);
  } catch (Error& e) {
    e.prefix(path.string());
    throw;
  }
}

std::optional<std::string> find_file(const Path& path, std::size_t limit) {
  try {
    return read_file(path, limit);
  } catch (const Error& e) {
    if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR) return std::nullopt;
    throw;
  }
}

std::optional<std::string> try_read_small(const Path& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  std::string out;
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0) return std::nullopt;
    if (got == 0) return out;
    out.append(buffer, static_cast<std::size_t>(got));
    if (out.size() > (4 << 20)) return out;
  }
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw Error::from_errno(errno, "write");
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
}

void write_existing(const Path& path, std::string_view text) {
  Fd fd = open_file(path, O_WRONLY);
  try {
    write_all(fd.get(), text);
  } catch (Error& e) {
    e.prefix(path.string());
    throw;
  }
}

void write_atomically(const Path& path, std::string_view bytes, mode_t mode, bool durable) {
  const Path temporary = path.parent_path() / fmt::format(".{}.{}", path.filename().string(), random_id().substr(0, 8));
  Fd fd = open_file(temporary, O_WRONLY | O_CREAT | O_EXCL, mode);
  try {
    write_all(fd.get(), bytes);
    if (::fchmod(fd.get(), mode) != 0) throw Error::from_errno(errno, "chmod");
    if (durable && ::fsync(fd.get()) != 0) throw Error::from_errno(errno, "fsync");
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw Error::from_errno(errno, "rename");
  } catch (Error& e) {
    ::unlink(temporary.c_str());
    e.prefix(path.string());
    throw;
  }
  if (durable) sync_directory(path.parent_path());
}

void sync_directory(const Path& path) {
  Fd fd = open_file(path, O_RDONLY | O_DIRECTORY);
  if (::fsync(fd.get()) != 0) throw Error::from_errno(errno, fmt::format("fsync {}", path.string()));
}

void make_directories(const Path& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0 || errno == EEXIST) {
    struct stat st{};
    if (::stat(path.c_str(), &st) != 0 || !S_ISDIR(st.st_mode))
      throw Error::from_errno(ENOTDIR, fmt::format("make directory {}", path.string()));
    return;
  }
  if (errno != ENOENT || !path.has_parent_path() || path.parent_path() == path)
    throw Error::from_errno(errno, fmt::format("make directory {}", path.string()));
  make_directories(path.parent_path(), mode);
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST)
    throw Error::from_errno(errno, fmt::format("make directory {}", path.string()));
}

std::uint64_t remove_tree(const Path& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return 0;
    throw Error::from_errno(errno, fmt::format("stat {}", path.string()));
  }
  Removal removal{path, st.st_dev};
  if (!S_ISDIR(st.st_mode)) {
    remove_entry(removal, AT_FDCWD, path.c_str(), 0);
    return removal.freed;
  }
  const Fd top = open_file(path, kOpenDirectory);
  removal.top = top.get();
  for (int attempts = 1;; ++attempts) {
    for (std::uint64_t before = removal.moved;; before = removal.moved) {
      Fd again(::openat(top.get(), ".", kOpenDirectory));
      if (!again) throw Error::from_errno(errno, fmt::format("open {}", path.string()));
      remove_below(removal, std::move(again), 0);
      if (removal.moved == before) break;  // what lay too deep is at the top now
    }
    if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return removal.freed;
    if (errno != ENOTEMPTY || attempts == kRemovalAttempts)
      throw Error::from_errno(errno, fmt::format("remove directory {}", path.string()));
  }
}

std::uint64_t tree_size(const Path& path) {
  Fd dir(::open(path.c_str(), kOpenDirectory));
  if (!dir) throw Error::from_errno(errno, fmt::format("open {}", path.string()));
  struct stat st{};
  if (::fstat(dir.get(), &st) != 0) throw Error::from_errno(errno, fmt::format("stat {}", path.string()));
  std::set<ino_t> linked;
  return size_below(std::move(dir), path, st.st_dev, linked, 0);
}

std::vector<std::string> list_directory(const Path& path) {
  std::vector<std::string> names;
  for_each_entry(open_file(path, O_RDONLY | O_DIRECTORY), path,
                 [&](int, const char* name) { names.emplace_back(name); });
  return names;
}

void spread_subdirectories(const Path& path) noexcept {
  Fd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int flags = 0;
  if (!dir || ::ioctl(dir.get(), FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_TOPDIR_FL;
  (void)::ioctl(dir.get(), FS_IOC_SETFLAGS, &flags);
}

}  // namespace gantry::sys
