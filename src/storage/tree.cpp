#include "storage/tree.hpp"

#include <algorithm>
#include <cerrno>
#include <set>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

void count_below(int directory, int depth, std::set<std::pair<dev_t, ino_t>>& linked, TreeCount& count) {
  if (depth > kDeepestWalk) throw Error(Errc::invalid_argument, "directories are nested too deeply");
  for (const std::string& name : list_names(directory)) {
    const auto st = find_stat(directory, name.c_str());
    if (!st) continue;
    ++count.entries;
    if (S_ISDIR(st->st_mode)) {
      const sys::Fd child = open_subdirectory(directory, name.c_str());
      count_below(child.get(), depth + 1, linked, count);
    } else if (S_ISREG(st->st_mode) && (st->st_nlink == 1 || linked.insert({st->st_dev, st->st_ino}).second)) {
      count.bytes += static_cast<std::uint64_t>(st->st_size);
    }
  }
}

}  // namespace

bool is_opaque(int directory) { return sys::find_xattr(directory, kOpaqueXattr) == "y"; }
void set_opaque(int directory) { sys::set_xattr(directory, sys::Xattr{kOpaqueXattr, "y"}); }

std::optional<struct stat> find_stat(int directory, const char* name) {
  struct stat st{};
  if (::fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0) return st;
  if (errno == ENOENT) return std::nullopt;
  throw Error::from_errno(errno, fmt::format("stat {}", quote(name)));
}

struct stat get_stat(int fd) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) throw Error::from_errno(errno, "stat");
  return st;
}

sys::Fd open_subdirectory(int parent, const char* name) {
  sys::Fd fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) throw Error::from_errno(errno, fmt::format("open directory {}", quote(name)));
  return fd;
}

std::vector<std::string> list_names(int directory) {
  sys::Fd own(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own) throw Error::from_errno(errno, "open directory");
  DIR* stream = ::fdopendir(own.get());
  if (stream == nullptr) throw Error::from_errno(errno, "read directory");
  (void)own.release();
  struct Closer {
    DIR* stream;
    ~Closer() { ::closedir(stream); }
  } closer{stream};
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream);
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) throw Error::from_errno(errno, "read directory");
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_link(int directory, const char* name) {
  char target[PATH_MAX];
  const ssize_t size = ::readlinkat(directory, name, target, sizeof target);
  if (size < 0) throw Error::from_errno(errno, fmt::format("read link {}", quote(name)));
  return {target, static_cast<std::size_t>(size)};
}

std::optional<std::string> clean_relative(std::string_view name) {
  std::string clean;
  while (!name.empty()) {
    const std::size_t slash = std::min(name.find('/'), name.size());
    const std::string_view part = name.substr(0, slash);
    name.remove_prefix(std::min(slash + 1, name.size()));
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (clean.empty()) return std::nullopt;
      const std::size_t last = clean.rfind('/');
      clean.resize(last == std::string::npos ? 0 : last);
      continue;
    }
    if (!clean.empty()) clean += '/';
    clean += part;
  }
  return clean;
}

std::string clamp_relative(std::string_view path) {
  std::string clean;
  for (const std::string& part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      const std::size_t last = clean.rfind('/');
      clean.resize(last == std::string::npos ? 0 : last);
      continue;
    }
    if (!clean.empty()) clean += '/';
    clean += part;
  }
  return clean;
}

std::pair<std::string, std::string> split_path(const std::string& clean) {
  const std::size_t slash = clean.rfind('/');
  if (slash == std::string::npos) return {"", clean};
  return {clean.substr(0, slash), clean.substr(slash + 1)};
}

TreeCount count_tree(int directory) {
  TreeCount count;
  std::set<std::pair<dev_t, ino_t>> linked;
  count_below(directory, 0, linked, count);
  return count;
}

}  // namespace gantry::storage
