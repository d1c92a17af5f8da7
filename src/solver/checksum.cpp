#include "solver/checksum.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/path_pattern.hpp"
#include "solver/file_notes.hpp"
#include "solver/keys.hpp"
#include "solver/threads.hpp"
#include "storage/hash.hpp"
#include "storage/tree.hpp"
#include "sys/xattr.hpp"

namespace gantry::solver {
namespace {

using dockerfile::IgnoreMatcher;
using dockerfile::PathPattern;

constexpr std::string_view kVersion = "gantry-tree-1";
constexpr std::size_t kBuffer = 256 << 10;
constexpr std::string_view kWildcards = "*?[\\";

/// Labels of the machine are not the file's; capabilities are.
bool counts(const std::string& xattr) {
  if (xattr == "security.capability") return true;
  return !xattr.starts_with("security.") && !xattr.starts_with("system.") && !xattr.starts_with("trusted.overlay.");
}

/// What the digest of an entry begins with: everything but its name, times and data.
void add_looks(KeyHash& hash, const struct stat& st, const std::vector<sys::Xattr>& xattrs) {
  const bool device = S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode);
  hash.add(fmt::format("{:o} {} {} {} {}:{}", st.st_mode, st.st_uid, st.st_gid, S_ISREG(st.st_mode) ? st.st_size : 0,
                       device ? major(st.st_rdev) : 0, device ? minor(st.st_rdev) : 0));
  for (const sys::Xattr& attribute : xattrs)
    if (counts(attribute.name)) hash.add(attribute.name).add(attribute.value);
  hash.add("");
}

/// Walks the selected parts of a tree.
class TreeHasher {
 public:
  TreeHasher(const Selector& selector, FileNotes& notes, const std::stop_token& stop)
      : selector_(selector),
        include_(selector.include),
        exclude_(selector.exclude),
        has_include_(!selector.include.empty()),
        notes_(notes),
        stop_(stop),
        buffer_(kBuffer, '\0') {}

  /// The digest of the entry `name` in `parent`; nullopt if the patterns leave nothing of it.
  std::optional<std::string> entry(int parent, const std::string& name, const std::string& path,
                                   IgnoreMatcher::Verdict included, IgnoreMatcher::Verdict excluded, int depth) {
    require_running(stop_);
    const auto st = storage::find_stat(parent, name.c_str());
    if (!st) return std::nullopt;
    const bool is_out = is_left_out(included, excluded);
    if (S_ISDIR(st->st_mode)) {
      if (is_out && !may_hold(path, excluded)) return std::nullopt;
      const sys::Fd directory = storage::open_subdirectory(parent, name.c_str());
      return tree(directory.get(), path, included, excluded, is_out, false, depth + 1);
    }
    if (is_out) return std::nullopt;
    KeyHash hash;
    add_looks(hash, *st, sys::list_xattrs(parent, name));
    if (S_ISLNK(st->st_mode)) hash.add(storage::read_link(parent, name.c_str()));
    if (S_ISREG(st->st_mode)) {
      const sys::Fd file = sys::open_beneath(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      hash.add(data_digest(file.get(), *st));
    }
    return hash.key();
  }

  /// The digest of an open directory. If it is left out itself, it counts only with something in it.
  std::optional<std::string> tree(int directory, const std::string& path, IgnoreMatcher::Verdict included,
                                  IgnoreMatcher::Verdict excluded, bool is_out, bool without_looks, int depth) {
    if (depth > storage::kDeepestWalk) throw Error(Errc::invalid_argument, path + " is nested too deeply");
    KeyHash hash;
    if (without_looks) hash.add("directory");
    else add_looks(hash, storage::get_stat(directory), sys::list_xattrs(directory));
    bool holds_something = false;
    for (const std::string& name : storage::list_names(directory)) {
      const std::string below = path.empty() ? name : path + "/" + name;
      const auto in = has_include_ ? include_.judge(below, included) : IgnoreMatcher::Verdict{};
      const auto out = exclude_.empty() ? IgnoreMatcher::Verdict{} : exclude_.judge(below, excluded);
      const auto digest = entry(directory, name, below, in, out, depth);
      if (!digest) continue;
      holds_something = true;
      hash.add(name).add(*digest);
    }
    if (is_out && !holds_something) return std::nullopt;
    return hash.key();
  }

  /// The digest of what is open (with O_PATH) as the whole of a selection.
  std::optional<std::string> selected(int fd, const std::string& name) {
    const struct stat st = storage::get_stat(fd);
    if (S_ISDIR(st.st_mode)) {
      const sys::Fd directory = sys::open_beneath(fd, ".", O_RDONLY | O_DIRECTORY);
      return tree(directory.get(), "", {}, {}, false, selector_.contents_only, 0);
    }
    const auto out = exclude_.empty() ? IgnoreMatcher::Verdict{} : exclude_.judge(name, {});
    if (exclude_.excluded(out)) return std::nullopt;
    KeyHash hash;
    add_looks(hash, st, sys::list_xattrs(fd));
    if (S_ISLNK(st.st_mode)) hash.add(link_target(fd));
    if (S_ISREG(st.st_mode)) hash.add(data_digest(sys::open_file(sys::fd_path(fd), O_RDONLY).get(), st));
    return hash.key();
  }

 private:
  bool is_left_out(IgnoreMatcher::Verdict included, IgnoreMatcher::Verdict excluded) const {
    return (has_include_ && !include_.excluded(included)) || (!exclude_.empty() && exclude_.excluded(excluded));
  }
  /// Whether something below a directory that is left out may be in.
  bool may_hold(const std::string& path, IgnoreMatcher::Verdict excluded) const {
    return !exclude_.excluded(excluded) || exclude_.may_include_below(path, excluded);
  }
  static std::string link_target(int fd) {
    std::string target(4096, '\0');
    const ssize_t size = ::readlinkat(fd, "", target.data(), target.size());
    if (size < 0) throw Error::from_errno(errno, "read link");
    target.resize(static_cast<std::size_t>(size));
    return target;
  }
  std::string data_digest(int file, const struct stat& st) {
    if (const DataDigest* known = notes_.find(st)) return render_hex({reinterpret_cast<const char*>(known), 32});
    storage::Sha256 hash;
    for (;;) {
      require_running(stop_);
      const ssize_t got = ::read(file, buffer_.data(), buffer_.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw Error::from_errno(errno, "read");
      if (got == 0) break;
      hash.update({buffer_.data(), static_cast<std::size_t>(got)});
    }
    std::string hex = hash.hex();
    DataDigest bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<unsigned char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
    notes_.add(st, bytes);
    return hex;
  }

  const Selector& selector_;
  const IgnoreMatcher include_;
  const IgnoreMatcher exclude_;
  const bool has_include_;
  FileNotes& notes_;
  const std::stop_token& stop_;
  std::string buffer_;
};

[[noreturn]] void fail_not_found(const std::string& path) {
  throw Error(Errc::not_found, fmt::format("{}: not found", quote("/" + storage::clamp_relative(path))));
}

sys::Fd open_selected(int root, const std::string& path, bool follow) {
  const std::string clean = storage::clamp_relative(path);
  try {
    return sys::open_in_root(root, clean.empty() ? "." : clean, O_PATH | (follow ? 0 : O_NOFOLLOW));
  } catch (const Error& e) {
    if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR || e.sys_errno() == ELOOP) fail_not_found(path);
    throw;
  }
}

/// Names that match a pattern of Go's filepath.Match, below the part of it that has no wildcard.
class WildcardWalk {
 public:
  explicit WildcardWalk(const std::string& pattern) {
    for (const std::string& part : split(storage::clamp_relative(pattern), '/')) {
      if (matchers_.empty() && part.find_first_of(kWildcards) == std::string::npos) {
        prefix_ += (prefix_.empty() ? "" : "/") + part;
        continue;
      }
      // Two stars are one here, and any depth in PathPattern's language.
      std::string single;
      for (const char c : part)
        if (c != '*' || single.empty() || single.back() != '*') single.push_back(c);
      if (!dockerfile::is_valid_glob(single)) throw Error(Errc::invalid_argument, "syntax error in pattern");
      matchers_.emplace_back(single);
    }
  }
  /// Paths in the tree, sorted.
  std::vector<std::string> run(int root) {
    std::vector<std::string> found;
    try {
      const sys::Fd base = sys::open_in_root(root, prefix_.empty() ? "." : prefix_, O_RDONLY | O_DIRECTORY);
      below(base.get(), prefix_, 0, found);
    } catch (const Error& e) {
      if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR) throw;
    }
    return found;
  }

 private:
  void below(int directory, const std::string& path, std::size_t part, std::vector<std::string>& found) {
    for (const std::string& name : storage::list_names(directory)) {
      if (!matchers_[part].matches(name)) continue;
      const std::string at = path.empty() ? name : path + "/" + name;
      if (part + 1 == matchers_.size()) {
        found.push_back(at);
        continue;
      }
      const auto st = storage::find_stat(directory, name.c_str());
      if (st && S_ISDIR(st->st_mode))
        below(storage::open_subdirectory(directory, name.c_str()).get(), at, part + 1, found);
    }
  }
  std::string prefix_;
  std::vector<PathPattern> matchers_;
};

std::string hash_selection(int root, const Selector& selector, FileNotes& notes, const std::stop_token& stop) {
  TreeHasher hasher(selector, notes, stop);
  KeyHash hash;
  hash.add(kVersion);
  const auto add = [&](const std::string& path, const std::string& name) {
    const sys::Fd fd = open_selected(root, path, selector.follow_links);
    const std::string base = storage::split_path(storage::clamp_relative(path)).second;
    if (const auto digest = hasher.selected(fd.get(), base)) hash.add(name).add(*digest);
  };
  if (!selector.wildcard || selector.path.find_first_of(kWildcards) == std::string::npos) {
    add(selector.path, "");
    return hash.key();
  }
  for (const std::string& path : WildcardWalk(selector.path).run(root)) add(path, path);
  return hash.key();
}

}  // namespace

std::string checksum(buildcache::Cache& cache, const buildcache::SnapshotPtr& snapshot, const Selector& selector,
                     std::stop_token stop) {
  if (!snapshot) {
    FileNotes none{sys::Path()};
    const sys::Fd root = sys::open_file(cache.snapshots().view(nullptr)->path(), O_RDONLY | O_DIRECTORY);
    return hash_selection(root.get(), selector, none, stop);
  }
  const std::string what = selector_key(selector);
  if (auto known = cache.index().find_digest(snapshot, what)) return *known;
  const sys::Path notes_file = cache.index().notes_file(snapshot);
  FileNotes notes(notes_file);
  std::unique_ptr<buildcache::View> view;
  sys::Fd root;
  // A context is one plain directory, in which files are known again by what stat says; a tree of layers is mounted.
  if (!notes_file.empty() && !snapshot->parent()) {
    root = sys::open_file(snapshot->directory(), O_RDONLY | O_DIRECTORY);
  } else {
    view = cache.snapshots().view(snapshot);
    root = sys::open_file(view->path(), O_RDONLY | O_DIRECTORY);
  }
  const std::string digest = hash_selection(root.get(), selector, notes, stop);
  root.reset();
  const bool all =
      storage::clamp_relative(selector.path).empty() && selector.include.empty() && selector.exclude.empty();
  notes.save(all);
  cache.index().store_digest(snapshot, what, digest);
  return digest;
}

}  // namespace gantry::solver
