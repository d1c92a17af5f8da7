#include "buildops/copier.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildops/tree_path.hpp"
#include "storage/file_content.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

[[noreturn]] void fail(std::string_view what, const std::string& path) {
  throw Error::from_errno(errno, fmt::format("{} /{}", what, path));
}

}  // namespace

PathFilter::PathFilter(const std::vector<std::string>& include, const std::vector<std::string>& exclude)
    : include_(include), exclude_(exclude), filters_in_(!include.empty()) {
  for (const std::string& text : include) {
    const bool negated = text.starts_with('!');
    if (!negated)
      literal_beginnings_.push_back(dockerfile::PathPattern(storage::clamp_relative(text)).literal_prefix());
  }
}

PathFilter::Verdict PathFilter::judge(const std::string& path, Verdict parent) const {
  return {include_.judge(path, parent.include), exclude_.judge(path, parent.exclude)};
}

bool PathFilter::takes(Verdict verdict) const {
  return (!filters_in_ || include_.excluded(verdict.include)) && !exclude_.excluded(verdict.exclude);
}

bool PathFilter::may_take_below(const std::string& directory, Verdict verdict) const {
  if (exclude_.excluded(verdict.exclude) && !exclude_.may_include_below(directory, verdict.exclude)) return false;
  if (!filters_in_ || include_.excluded(verdict.include)) return true;
  const std::string inside = directory + "/";
  return std::ranges::any_of(literal_beginnings_, [&](const std::string& beginning) {
    const std::size_t common = std::min(beginning.size(), inside.size());
    return beginning.compare(0, common, inside, 0, common) == 0;
  });
}

/// A directory that is being copied, and where to.
struct Copier::Directory {
  Directory* parent = nullptr;
  sys::Fd source;
  std::string source_path;  // from the top of what is copied
  std::string name;         // of the target in its parent's
  std::string target_path;  // from the destination's root
  sys::Fd target;           // made when something needs it
  struct stat st{};
  PathFilter::Verdict verdict;
  bool sets_attributes = false;  // they are written when all below is done
  int depth = 0;
};

Copier::Copier(int source_root, int destination_root, const PathFilter& filter, const CopierOptions& options)
    : source_root_(source_root), destination_root_(destination_root), filter_(filter), options_(options) {}

void Copier::copy(const std::string& source, const std::string& destination) {
  Directory top;
  const auto [source_directory, source_name] = split_last(source);
  const auto [target_directory, target_name] = split_last(destination);
  top.source = open_directory(source_root_, source_directory);
  top.target = open_directory(destination_root_, target_directory);
  top.target_path = target_directory;
  // The root has no name in a directory of its own.
  copy_entry(top, source_name.empty() ? "." : source_name, target_name.empty() ? "." : target_name, true);
}

void Copier::copy_entry(Directory& parent, const std::string& name, const std::string& target_name, bool top) {
  options_.check();
  const auto st = storage::find_stat(parent.source.get(), name.c_str());
  if (!st) throw Error(Errc::not_found, fmt::format("\"/{}\": not found", join_path(parent.source_path, name)));
  PathFilter::Verdict verdict;
  bool taken = !filter_.filters_in() || !S_ISDIR(st->st_mode);  // what is named itself is not filtered
  if (!top) {
    verdict = filter_.judge(join_path(parent.source_path, name), parent.verdict);
    taken = filter_.takes(verdict);
  }
  if (S_ISDIR(st->st_mode)) copy_directory(parent, name, *st, target_name, top, verdict, taken);
  else if (taken) copy_other(parent, name, *st, target_name);
}

void Copier::copy_directory(Directory& parent, const std::string& name, const struct stat& st,
                            const std::string& target_name, bool top, PathFilter::Verdict verdict, bool taken) {
  Directory own;
  own.parent = &parent;
  own.source_path = top ? std::string() : join_path(parent.source_path, name);
  if (!taken && !top && !filter_.may_take_below(own.source_path, verdict)) return;
  own.source = storage::open_subdirectory(parent.source.get(), name.c_str());
  own.name = target_name;
  own.target_path = target_name == "." ? parent.target_path : join_path(parent.target_path, target_name);
  own.st = st;
  own.verdict = verdict;
  own.depth = parent.depth + 1;
  if (own.depth > storage::kDeepestWalk)
    throw Error(Errc::invalid_argument, fmt::format("/{} is nested too deeply", own.source_path));
  if (taken) {
    require_target(own);
    if (!top) own.sets_attributes = true;
  }
  for (const std::string& entry : storage::list_names(own.source.get())) copy_entry(own, entry, entry, false);
  finish(own);
}

int Copier::require_target(Directory& directory) {
  if (directory.target) return directory.target.get();
  const int parent = require_target(*directory.parent);
  clear(parent, directory.name, directory.target_path, true);
  if (::mkdirat(parent, directory.name.c_str(), 0700) == 0) directory.sets_attributes = true;
  else if (errno != EEXIST) fail("mkdir", directory.target_path);
  directory.target = storage::open_subdirectory(parent, directory.name.c_str());
  return directory.target.get();
}

void Copier::finish(Directory& directory) {
  if (!directory.target || !directory.sets_attributes) return;
  const Attributes model{directory.st, sys::list_xattrs(directory.source.get())};
  set_attributes(directory.parent->target.get(), directory.name, model, options_.looks, directory.target_path);
}

void Copier::clear(int directory, const std::string& name, const std::string& path, bool for_directory) {
  const auto there = storage::find_stat(directory, name.c_str());
  if (!there) return;
  const bool is_directory = S_ISDIR(there->st_mode);
  if (is_directory && for_directory) return;
  if (for_directory && !options_.always_replace)
    throw Error(Errc::conflict, fmt::format("cannot copy to non-directory: /{}", path));
  if (is_directory && !options_.always_replace)
    throw Error(Errc::conflict, fmt::format("cannot replace to directory /{} with file", path));
  if (is_directory) sys::remove_tree(sys::entry_path(directory, name));
  else if (::unlinkat(directory, name.c_str(), 0) != 0 && errno != ENOENT) fail("remove", path);
}

void Copier::copy_other(Directory& parent, const std::string& name, const struct stat& st,
                        const std::string& target_name) {
  const int source = parent.source.get();
  const int target = require_target(parent);
  const std::string path = join_path(parent.target_path, target_name);
  clear(target, target_name, path, false);
  if (S_ISREG(st.st_mode) && link_to_earlier(target, target_name, path, st)) return;
  switch (st.st_mode & S_IFMT) {
    case S_IFREG: copy_file(source, name, target, target_name, path); break;
    case S_IFLNK:
      if (::symlinkat(storage::read_link(source, name.c_str()).c_str(), target, target_name.c_str()) != 0)
        fail("create symbolic link", path);
      break;
    default:
      if (storage::is_whiteout(st))
        throw Error(Errc::invalid_argument, fmt::format("/{}: character device 0:0 is not allowed", path));
      if (::mknodat(target, target_name.c_str(), (st.st_mode & S_IFMT) | 0600, st.st_rdev) != 0)
        fail("create device", path);
  }
  const Attributes model{st, sys::list_xattrs(source, name)};
  set_attributes(target, target_name, model, options_.looks, path);
}

bool Copier::link_to_earlier(int target, const std::string& name, const std::string& path, const struct stat& st) {
  if (st.st_nlink < 2) return false;
  const auto [first, is_first] = first_names_.try_emplace({st.st_dev, st.st_ino}, path);
  if (is_first) return false;
  const auto [directory, base] = split_last(first->second);
  if (::linkat(open_directory(destination_root_, directory).get(), base.c_str(), target, name.c_str(), 0) == 0)
    return true;
  // Gone or at its limit of links: this one begins a new family.
  if (errno != ENOENT && errno != EMLINK) fail("create hard link", path);
  first->second = path;
  return false;
}

void Copier::copy_file(int source, const std::string& name, int target, const std::string& target_name,
                       const std::string& path) {
  const sys::Fd from(::openat(source, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!from) fail("open", path);
  const sys::Fd to(
      ::openat(target, target_name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600));
  if (!to) fail("create", path);
  with_context("/" + path, [&] { storage::copy_content(from.get(), to.get(), options_.check); });
}

}  // namespace gantry::buildops
