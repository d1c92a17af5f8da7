#include "storage/changes.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/error.hpp"
#include "storage/tree.hpp"

namespace gantry::storage {
namespace {

bool looks_alike(const struct stat& a, const struct stat& b) {
  return a.st_mode == b.st_mode && a.st_uid == b.st_uid && a.st_gid == b.st_gid &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

class Comparer {
 public:
  /// `lower` is -1 where the layers below have no such directory. True if something below was changed.
  bool compare(int upper, int lower, const std::string& path, int depth) {
    if (depth > kDeepestWalk) throw Error(Errc::invalid_argument, "directories are nested too deeply: " + path);
    bool changed = false;
    for (const std::string& name : list_names(upper)) {
      const auto st = find_stat(upper, name.c_str());
      if (!st) continue;  // removed while we look
      const auto before = lower < 0 ? std::nullopt : find_stat(lower, name.c_str());
      changed |= compare_entry(upper, name, *st, lower, before, path + "/" + name, depth);
    }
    if (lower >= 0 && is_opaque(upper)) changed |= list_hidden(upper, lower, path);
    return changed;
  }
  std::vector<Change> take() {
    std::sort(all_.begin(), all_.end(), [](const Change& a, const Change& b) { return a.path < b.path; });
    return std::move(all_);
  }

 private:
  bool compare_entry(int upper, const std::string& name, const struct stat& st, int lower,
                     const std::optional<struct stat>& before, const std::string& path, int depth) {
    if (is_whiteout(st)) {
      if (before) all_.push_back({path, ChangeKind::deleted});
      return before.has_value();
    }
    bool changed_below = false;
    if (S_ISDIR(st.st_mode)) {
      const sys::Fd child = open_subdirectory(upper, name.c_str());
      sys::Fd below;
      if (before && S_ISDIR(before->st_mode)) below = open_subdirectory(lower, name.c_str());
      changed_below = compare(child.get(), below ? below.get() : -1, path, depth + 1);
      // It is in the upper directory because something in it changed; that alone does not make it different.
      if (below && !changed_below && looks_alike(st, *before) && !is_opaque(child.get())) return false;
    }
    all_.push_back({path, before ? ChangeKind::modified : ChangeKind::added});
    return true;
  }

  /// What an opaque directory hides and does not have itself was deleted.
  bool list_hidden(int upper, int lower, const std::string& path) {
    bool any = false;
    for (const std::string& name : list_names(lower)) {
      if (find_stat(upper, name.c_str())) continue;
      all_.push_back({path + "/" + name, ChangeKind::deleted});
      any = true;
    }
    return any;
  }

  std::vector<Change> all_;
};

}  // namespace

std::vector<Change> list_changes(int upper, int lower) {
  Comparer comparer;
  comparer.compare(upper, lower, "", 0);
  return comparer.take();
}

}  // namespace gantry::storage
