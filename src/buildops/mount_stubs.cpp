#include "buildops/mount_stubs.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildops/tree_path.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

/// Gives a directory the time back that it had when this object was made.
class KeptTime {
 public:
  explicit KeptTime(int directory) : directory_(directory), time_(storage::get_stat(directory).st_mtim) {}
  ~KeptTime() {
    const timespec times[2] = {{0, UTIME_OMIT}, time_};
    (void)::futimens(directory_, times);
  }
  KeptTime(const KeptTime&) = delete;
  KeptTime& operator=(const KeptTime&) = delete;

 private:
  const int directory_;
  const timespec time_;
};

}  // namespace

void MountStubs::make(const std::vector<Target>& targets) {
  std::vector<Target> resolved;
  for (const Target& target : targets) {
    Target at{resolve_path(root_, target.path), target.directory};
    if (!at.path.empty()) resolved.push_back(std::move(at));
  }
  for (const Target& target : resolved) {
    const bool below_another =
        std::ranges::any_of(resolved, [&](const Target& other) { return target.path.starts_with(other.path + "/"); });
    if (!below_another) make_one(target.path, target.directory);
  }
}

void MountStubs::make_one(const std::string& path, bool directory) {
  const auto [parent_path, base] = split_last(path);
  if (!parent_path.empty()) make_one(parent_path, true);
  const sys::Fd parent = open_directory(root_, parent_path);
  const auto there = storage::find_stat(parent.get(), base.c_str());
  if (there) {
    if (S_ISDIR(there->st_mode) == directory) return;
    throw Error(Errc::conflict,
                fmt::format("cannot mount at /{}: {} a directory", path, directory ? "it is not" : "it is"));
  }
  const KeptTime time(parent.get());
  if (directory) {
    if (::mkdirat(parent.get(), base.c_str(), 0755) != 0) throw Error::from_errno(errno, "mkdir /" + path);
  } else {
    const sys::Fd file(
        ::openat(parent.get(), base.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!file) throw Error::from_errno(errno, "create /" + path);
  }
  made_.push_back(path);
}

void MountStubs::remove() {
  for (auto path = made_.rbegin(); path != made_.rend(); ++path) {
    const auto [parent_path, base] = split_last(*path);
    try {
      const sys::Fd parent = open_directory(root_, parent_path);
      const auto st = storage::find_stat(parent.get(), base.c_str());
      if (!st || (!S_ISDIR(st->st_mode) && (!S_ISREG(st->st_mode) || st->st_size != 0))) continue;
      const KeptTime time(parent.get());
      if (::unlinkat(parent.get(), base.c_str(), S_ISDIR(st->st_mode) ? AT_REMOVEDIR : 0) != 0 && errno != ENOTEMPTY &&
          errno != ENOENT)
        throw Error::from_errno(errno, "remove /" + *path);
    } catch (const Error& e) {
      // The process has removed or replaced what held it.
      if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR && e.sys_errno() != ELOOP) throw;
    }
  }
  made_.clear();
}

}  // namespace gantry::buildops
