#include "session/tree_listing.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <dirent.h>
#include <fcntl.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::session {

namespace {

constexpr std::size_t kMaxPath = 4095;
constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxDepth = 256;  // each level holds a descriptor

[[noreturn]] void refuse(const std::string& path, const char* why) {
  throw Error(Errc::invalid_argument, "invalid path " + quote(path) + " from the client: " + why);
}

void check_path(const std::string& path) {
  if (path.empty() || path.size() > kMaxPath) refuse(path.substr(0, 100), "its length");
  if (path.find('\0') != std::string::npos) refuse(path, "a NUL");
  if (path.front() == '/') refuse(path, "absolute");
  std::size_t depth = 0;
  for (std::size_t at = 0; at <= path.size(); ++depth) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view name = std::string_view(path).substr(at, end - at);
    if (name.empty() || name == "." || name == "..") refuse(path, "not clean");
    if (name.size() > kMaxName) refuse(path, "a name is too long");
    at = end + 1;
  }
  if (depth > kMaxDepth) refuse(path, "too many directories");
}

sys::Fd open_directory(int parent, const char* name) {
  sys::Fd fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) throw Error::from_errno(errno, std::string("open directory ") + name);
  return fd;
}

}  // namespace

std::vector<std::string> sorted_names(int directory) {
  DIR* stream = ::fdopendir(open_directory(directory, ".").release());
  if (stream == nullptr) throw Error::from_errno(errno, "read directory");
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int err = errno;
  ::closedir(stream);
  if (err != 0) throw Error::from_errno(err, "read directory");
  std::sort(names.begin(), names.end());
  return names;
}

TreeListing::TreeListing(int root, std::function<void(int, const std::string&, const std::string&)> remove)
    : root_(root), remove_(std::move(remove)) {
  stack_.push_back({.path = "", .fd = {}, .existing = sorted_names(root), .next = 0, .last = ""});
}

void TreeListing::drop_next(OpenDirectory& directory) {
  const std::string& gone = directory.existing[directory.next++];
  remove_(fd_of(directory), gone, directory.path.empty() ? gone : directory.path + "/" + gone);
}

void TreeListing::leave() {
  OpenDirectory& top = stack_.back();
  while (top.next < top.existing.size()) drop_next(top);
  stack_.pop_back();
}

TreeListing::Place TreeListing::place(const std::string& path) {
  check_path(path);
  const std::size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
  while (stack_.size() > 1 && stack_.back().path != parent) leave();
  OpenDirectory& top = stack_.back();
  if (top.path != parent) refuse(path, "its directory did not come before it");
  Place out;
  out.name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (!top.last.empty() && out.name <= top.last) refuse(path, "out of order");
  top.last = out.name;
  while (top.next < top.existing.size() && top.existing[top.next] < out.name) drop_next(top);
  out.directory = fd_of(top);
  if (top.next < top.existing.size() && top.existing[top.next] == out.name) {
    ++top.next;
    out.exists = ::fstatat(out.directory, out.name.c_str(), &out.st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!out.exists && errno != ENOENT) throw Error::from_errno(errno, "stat " + path);
  }
  return out;
}

void TreeListing::enter(const Place& place, const std::string& path) {
  OpenDirectory directory;
  directory.path = path;
  directory.fd = open_directory(place.directory, place.name.c_str());
  if (place.exists) directory.existing = sorted_names(directory.fd.get());
  stack_.push_back(std::move(directory));
}

void TreeListing::finish() {
  while (!stack_.empty()) leave();
}

}  // namespace gantry::session
