#include "sys/xattr.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/xattr.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace gantry::sys {
namespace {

constexpr std::size_t kLimit = 1 << 20;

using ListCall = ssize_t (*)(const char*, char*, size_t);
using GetCall = ssize_t (*)(const char*, const char*, void*, size_t);

/// Calls `read(buffer, size)` with growing buffers until the answer fits. nullopt if there is nothing to read.
template <class Read>
std::optional<std::string> read_growing(const std::string& path, Read read) {
  std::string buffer(256, '\0');
  for (;;) {
    const ssize_t got = read(buffer.data(), buffer.size());
    if (got >= 0) {
      buffer.resize(static_cast<std::size_t>(got));
      return buffer;
    }
    if (errno == ENODATA || errno == ENOTSUP) return std::nullopt;
    if (errno != ERANGE) throw Error::from_errno(errno, fmt::format("read extended attributes of {}", path));
    if (buffer.size() >= kLimit)
      throw Error(Errc::invalid_argument, fmt::format("extended attributes of {} exceed {} bytes", path, kLimit));
    buffer.resize(buffer.size() * 8);
  }
}

std::vector<Xattr> list_at(const std::string& path, ListCall list, GetCall get) {
  std::vector<Xattr> all;
  auto names = read_growing(path, [&](char* to, std::size_t size) { return list(path.c_str(), to, size); });
  std::size_t total = 0;
  for (std::size_t at = 0; names && at < names->size();) {
    std::string name = names->c_str() + at;
    at += name.size() + 1;
    auto value =
        read_growing(path, [&](char* to, std::size_t size) { return get(path.c_str(), name.c_str(), to, size); });
    if (!value) continue;  // removed meanwhile
    total += name.size() + value->size();
    if (total > kLimit)
      throw Error(Errc::invalid_argument, fmt::format("extended attributes of {} exceed {} bytes", path, kLimit));
    all.push_back({std::move(name), std::move(*value)});
  }
  std::sort(all.begin(), all.end(), [](const Xattr& a, const Xattr& b) { return a.name < b.name; });
  return all;
}

}  // namespace

std::string fd_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

std::string entry_path(int directory, std::string_view name) {
  return fmt::format("/proc/self/fd/{}/{}", directory, name);
}

std::vector<Xattr> list_xattrs(int directory, std::string_view name) {
  return list_at(entry_path(directory, name), ::llistxattr, ::lgetxattr);
}

std::vector<Xattr> list_xattrs(int fd) { return list_at(fd_path(fd), ::listxattr, ::getxattr); }

std::optional<std::string> find_xattr(int directory, std::string_view name, const char* attribute) {
  const std::string path = entry_path(directory, name);
  return read_growing(path, [&](char* to, std::size_t size) { return ::lgetxattr(path.c_str(), attribute, to, size); });
}

std::optional<std::string> find_xattr(int fd, const char* attribute) {
  const std::string path = fd_path(fd);
  return read_growing(path, [&](char* to, std::size_t size) { return ::getxattr(path.c_str(), attribute, to, size); });
}

void set_xattr(int directory, std::string_view name, const Xattr& attribute) {
  const std::string path = entry_path(directory, name);
  if (::lsetxattr(path.c_str(), attribute.name.c_str(), attribute.value.data(), attribute.value.size(), 0) != 0)
    throw Error::from_errno(errno, fmt::format("set extended attribute {} of {}", attribute.name, name));
}

void set_xattr(int fd, const Xattr& attribute) {
  const std::string path = fd_path(fd);
  if (::setxattr(path.c_str(), attribute.name.c_str(), attribute.value.data(), attribute.value.size(), 0) != 0)
    throw Error::from_errno(errno, fmt::format("set extended attribute {}", attribute.name));
}

}  // namespace gantry::sys
