#include "buildops/tree_delta.hpp"

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildops/attributes.hpp"
#include "buildops/tree_path.hpp"
#include "storage/file_content.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

constexpr std::size_t kCompared = 256 << 10;

[[noreturn]] void fail(std::string_view what, const std::string& path) {
  throw Error::from_errno(errno, fmt::format("{} /{}", what, path));
}

void require_depth(int depth, const std::string& path) {
  if (depth > storage::kDeepestWalk) throw Error(Errc::invalid_argument, fmt::format("/{} is nested too deeply", path));
}

sys::Fd open_for_reading(int directory, const std::string& name) {
  sys::Fd file(::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) fail("open", name);
  return file;
}

/// Makes copies of things that are no directories; those of one file are one file again.
class Maker {
 public:
  explicit Maker(int root, const std::function<void()>& check) : root_(root), check_(check) {}

  void copy(int from, int to, const std::string& name, const struct stat& st, const std::string& path) {
    if (S_ISREG(st.st_mode) && st.st_nlink > 1) {
      const auto [first, is_first] = names_.try_emplace({st.st_dev, st.st_ino}, path);
      if (!is_first) {
        const auto [directory, base] = split_last(first->second);
        if (::linkat(open_directory(root_, directory).get(), base.c_str(), to, name.c_str(), 0) == 0) return;
        first->second = path;
      }
    }
    if (S_ISREG(st.st_mode)) {
      const sys::Fd source = open_for_reading(from, name);
      const sys::Fd target(
          ::openat(to, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600));
      if (!target) fail("create", path);
      storage::copy_content(source.get(), target.get(), check_);
    } else if (S_ISLNK(st.st_mode)) {
      if (::symlinkat(storage::read_link(from, name.c_str()).c_str(), to, name.c_str()) != 0) fail("symlink", path);
    } else if (::mknodat(to, name.c_str(), (st.st_mode & S_IFMT) | 0600, st.st_rdev) != 0) {
      fail("create device", path);
    }
    set_attributes(to, name, {st, sys::list_xattrs(from, name)}, {}, path);
  }

 private:
  const int root_;
  const std::function<void()>& check_;
  std::map<std::pair<dev_t, ino_t>, std::string> names_;
};

void remove_entry(int directory, const std::string& name, const struct stat& st) {
  if (S_ISDIR(st.st_mode)) sys::remove_tree(sys::entry_path(directory, name));
  else if (::unlinkat(directory, name.c_str(), 0) != 0 && errno != ENOENT) fail("remove", name);
}

class LayerApplier {
 public:
  LayerApplier(int root, const std::function<void()>& check) : check_(check), maker_(root, check) {}

  void apply(int layer, int target, const std::string& prefix, int depth) {
    require_depth(depth, prefix);
    for (const std::string& name : storage::list_names(layer)) {
      check_();
      const auto st = storage::find_stat(layer, name.c_str());
      if (!st) continue;
      const std::string path = join_path(prefix, name);
      auto there = storage::find_stat(target, name.c_str());
      if (there && (!S_ISDIR(st->st_mode) || !S_ISDIR(there->st_mode))) {
        remove_entry(target, name, *there);
        there.reset();
      }
      if (storage::is_whiteout(*st)) continue;
      if (!S_ISDIR(st->st_mode)) {
        maker_.copy(layer, target, name, *st, path);
        continue;
      }
      const sys::Fd below = storage::open_subdirectory(layer, name.c_str());
      if (there && storage::is_opaque(below.get())) {
        remove_entry(target, name, *there);
        there.reset();
      }
      if (!there && ::mkdirat(target, name.c_str(), 0700) != 0) fail("mkdir", path);
      apply(below.get(), storage::open_subdirectory(target, name.c_str()).get(), path, depth + 1);
      set_attributes(target, name, {*st, sys::list_xattrs(below.get())}, {}, path);
    }
  }

 private:
  const std::function<void()>& check_;
  Maker maker_;
};

bool same_xattrs(int a, int b, const std::string& name) {
  const auto first = sys::list_xattrs(a, name);
  const auto second = sys::list_xattrs(b, name);
  return std::ranges::equal(
      first, second, [](const sys::Xattr& x, const sys::Xattr& y) { return x.name == y.name && x.value == y.value; });
}

bool same_content(int a, int b, const std::string& name, const std::function<void()>& check) {
  const sys::Fd first = open_for_reading(a, name);
  const sys::Fd second = open_for_reading(b, name);
  std::vector<char> left(kCompared);
  std::vector<char> right(kCompared);
  for (off_t at = 0;;) {
    check();
    const ssize_t got = ::pread(first.get(), left.data(), left.size(), at);
    if (got < 0) fail("read", name);
    if (::pread(second.get(), right.data(), right.size(), at) != got) return false;
    if (got == 0) return true;
    if (!std::equal(left.begin(), left.begin() + got, right.begin())) return false;
    at += got;
  }
}

bool same_attributes(const struct stat& a, const struct stat& b) {
  const bool same_time = a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
  return a.st_mode == b.st_mode && a.st_uid == b.st_uid && a.st_gid == b.st_gid && a.st_rdev == b.st_rdev &&
         (S_ISDIR(a.st_mode) || (a.st_size == b.st_size && same_time));
}

class Differ {
 public:
  Differ(int delta, const std::function<void()>& check) : root_(delta), check_(check), maker_(delta, check) {}

  /// True if anything below differs. Directories of the delta are made when something goes into them.
  void compare(int lower, int upper, const std::string& prefix, int depth) {
    require_depth(depth, prefix);
    std::vector<std::string> gone;
    if (lower >= 0) gone = storage::list_names(lower);
    for (const std::string& name : storage::list_names(upper)) {
      check_();
      std::erase(gone, name);
      compare_entry(lower, upper, name, join_path(prefix, name), depth);
    }
    for (const std::string& name : gone)
      if (::mknodat(place(prefix).get(), name.c_str(), S_IFCHR, 0) != 0) fail("create whiteout", name);
  }

  /// Directories last: their times change while things are made in them.
  void finish(int upper) {
    for (auto path = made_.rbegin(); path != made_.rend(); ++path) {
      const auto [parent, base] = split_last(*path);
      const sys::Fd from = open_directory(upper, parent);
      const auto st = storage::find_stat(from.get(), base.c_str());
      if (st) set_attributes(place(parent).get(), base, {*st, sys::list_xattrs(from.get(), base)}, {}, *path);
    }
  }

 private:
  void compare_entry(int lower, int upper, const std::string& name, const std::string& path, int depth) {
    const auto st = storage::find_stat(upper, name.c_str());
    if (!st) return;
    const auto before = lower < 0 ? std::nullopt : storage::find_stat(lower, name.c_str());
    if (S_ISDIR(st->st_mode)) {
      const bool was_directory = before && S_ISDIR(before->st_mode);
      const sys::Fd below = storage::open_subdirectory(upper, name.c_str());
      if (!was_directory || !same_attributes(*before, *st) || !same_xattrs(lower, upper, name)) (void)place(path);
      const sys::Fd old = was_directory ? storage::open_subdirectory(lower, name.c_str()) : sys::Fd();
      return compare(old.get(), below.get(), path, depth + 1);
    }
    if (before && same_attributes(*before, *st) && same_xattrs(lower, upper, name) &&
        (!S_ISREG(st->st_mode) || same_content(lower, upper, name, check_)) &&
        (!S_ISLNK(st->st_mode) || storage::read_link(lower, name.c_str()) == storage::read_link(upper, name.c_str())))
      return;
    const auto [parent, base] = split_last(path);
    maker_.copy(upper, place(parent).get(), name, *st, path);
  }

  /// A directory of the delta.
  sys::Fd place(const std::string& path) {
    if (path.empty()) return open_directory(root_, "");
    const auto [parent, base] = split_last(path);
    const sys::Fd above = place(parent);
    if (::mkdirat(above.get(), base.c_str(), 0755) == 0) made_.push_back(path);
    else if (errno != EEXIST) fail("mkdir", path);
    return storage::open_subdirectory(above.get(), base.c_str());
  }

  const int root_;
  const std::function<void()>& check_;
  Maker maker_;
  std::vector<std::string> made_;
};

}  // namespace

void apply_layer(int layer, int root, const std::function<void()>& check) {
  LayerApplier(root, check).apply(layer, root, "", 0);
}

void write_difference(int lower, int upper, int delta, const std::function<void()>& check) {
  Differ differ(delta, check);
  differ.compare(lower, upper, "", 0);
  differ.finish(upper);
}

}  // namespace gantry::buildops
