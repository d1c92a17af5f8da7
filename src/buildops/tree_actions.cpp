#include "buildops/tree_actions.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildops/tree_path.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

[[noreturn]] void fail(std::string_view what, const std::string& path) {
  throw Error::from_errno(errno, fmt::format("{} /{}", what, path));
}

struct Place {
  sys::Fd directory;
  std::string name;
};

/// Where something that is to be made at `path` goes.
Place place_of(int root, const std::string& path, std::string_view what) {
  const auto [parent, base] = split_last(path);
  if (base.empty()) throw Error(Errc::invalid_argument, fmt::format("{} /: it is the root", what));
  return with_context(fmt::format("{} /{}", what, path), [&] { return Place{open_directory(root, parent), base}; });
}

void remove_one(int root, const std::string& path, bool allow_missing) {
  const auto [directory, base] = split_last(path);
  if (base.empty()) throw Error(Errc::invalid_argument, "rm /: it is the root");
  const std::string inside = resolve_path(root, directory);
  try {
    const sys::Fd parent = open_directory(root, inside);
    if (storage::find_stat(parent.get(), base.c_str())) {
      sys::remove_tree(sys::entry_path(parent.get(), base));
      return;
    }
  } catch (const Error& e) {
    if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR) throw;
  }
  if (!allow_missing) throw Error(Errc::not_found, fmt::format("stat /{}: no such file or directory", path));
}

}  // namespace

void make_directory(int root, std::string_view path, mode_t mode, bool parents, const Looks& looks) {
  const std::string target = resolve_path(root, path);
  if (target.empty()) return;
  if (parents) {
    make_directories(root, target, looks, mode & 0777);
    return;
  }
  const Place place = place_of(root, target, "mkdir");
  if (::mkdirat(place.directory.get(), place.name.c_str(), mode & 0777) != 0) {
    if (errno == EEXIST) return;
    fail("mkdir", target);
  }
  set_new_looks(place.directory.get(), place.name, looks, mode & 0777);
}

void make_file(int root, std::string_view path, mode_t mode, std::string_view bytes, const Looks& looks) {
  const std::string target = resolve_path(root, path);
  const Place place = place_of(root, target, "open");
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
  const sys::Fd file(::openat(place.directory.get(), place.name.c_str(), flags, 0600));
  if (!file) fail("open", target);
  if (!S_ISREG(storage::get_stat(file.get()).st_mode))
    throw Error(Errc::invalid_argument, fmt::format("open /{}: not a regular file", target));
  sys::write_all(file.get(), bytes);
  set_new_looks(place.directory.get(), place.name, looks, mode & 0777);
}

void make_symlink(int root, std::string_view target, std::string_view path, const Looks& looks) {
  const std::string at = resolve_path(root, path, false);
  const Place place = place_of(root, at, "symlink");
  if (::symlinkat(std::string(target).c_str(), place.directory.get(), place.name.c_str()) != 0) fail("symlink", at);
  set_new_looks(place.directory.get(), place.name, looks, std::nullopt);
}

void remove_path(int root, std::string_view path, bool allow_missing, bool wildcards) {
  if (!wildcards) return remove_one(root, storage::clamp_relative(path), allow_missing);
  for (const std::string& match : expand_wildcards(root, path, false)) remove_one(root, match, allow_missing);
}

}  // namespace gantry::buildops
