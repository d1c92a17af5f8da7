#include "buildops/attributes.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildops/tree_path.hpp"
#include "storage/tree.hpp"
#include "storage/unpack.hpp"

namespace gantry::buildops {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

[[noreturn]] void fail(std::string_view what, const std::string& path) {
  throw Error::from_errno(errno, fmt::format("{} /{}", what, path));
}

timespec to_timespec(std::int64_t nanoseconds) {
  std::int64_t seconds = nanoseconds / kSecond;
  std::int64_t rest = nanoseconds % kSecond;
  if (rest < 0) {
    rest += kSecond;
    --seconds;
  }
  return {static_cast<time_t>(seconds), static_cast<long>(rest)};
}

void set_owner(int directory, const std::string& name, uid_t uid, gid_t gid, const std::string& path) {
  if (::fchownat(directory, name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0) fail("chown", path);
}

/// Not for symbolic links, which have no mode.
void set_mode(int directory, const std::string& name, mode_t mode, const std::string& path) {
  // By a descriptor of the thing itself: fchmodat(2) would follow a link that somebody puts there meanwhile.
  const sys::Fd file(::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file) fail("open", path);
  if (S_ISLNK(storage::get_stat(file.get()).st_mode)) return;
  if (::chmod(sys::fd_path(file.get()).c_str(), mode) != 0) fail("chmod", path);
}

void set_times(int directory, const std::string& name, const timespec& accessed, const timespec& modified,
               const std::string& path) {
  const timespec times[2] = {accessed, modified};
  if (::utimensat(directory, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) fail("set time of", path);
}

void set_xattrs(int directory, const std::string& name, const std::vector<sys::Xattr>& xattrs) {
  for (const sys::Xattr& attribute : xattrs) {
    if (!storage::is_allowed_xattr(attribute.name)) continue;
    try {
      sys::set_xattr(directory, name, attribute);
    } catch (const Error& e) {
      // As BuildKit: a file without one of its extra attributes is better than no build. A full disk is another matter.
      if (e.sys_errno() == ENOSPC || e.sys_errno() == EDQUOT || e.sys_errno() == EIO) throw;
    }
  }
}

}  // namespace

void set_attributes(int directory, const std::string& name, const Attributes& model, const Looks& looks,
                    const std::string& path) {
  const Owner owner = looks.owner.value_or(Owner{model.st.st_uid, model.st.st_gid});
  set_owner(directory, name, owner.uid, owner.gid, path);
  // After the owner, which clears the set-id bits.
  if (!S_ISLNK(model.st.st_mode)) set_mode(directory, name, looks.mode.apply(model.st.st_mode), path);
  set_xattrs(directory, name, model.xattrs);
  if (looks.timestamp) {
    const timespec time = to_timespec(*looks.timestamp);
    set_times(directory, name, time, time, path);
  } else {
    set_times(directory, name, model.st.st_atim, model.st.st_mtim, path);
  }
}

void set_new_looks(int directory, const std::string& name, const Looks& looks, std::optional<mode_t> mode) {
  if (looks.owner) set_owner(directory, name, looks.owner->uid, looks.owner->gid, name);
  if (mode) set_mode(directory, name, *mode, name);
  if (looks.timestamp) {
    const timespec time = to_timespec(*looks.timestamp);
    set_times(directory, name, time, time, name);
  }
}

bool make_directories(int root, const std::string& path, const Looks& looks, mode_t mode) {
  if (path.empty()) return false;
  try {
    (void)open_directory(root, path);
    return false;
  } catch (const Error& e) {
    if (e.sys_errno() == ENOTDIR || e.sys_errno() == ELOOP)
      throw Error(Errc::conflict, fmt::format("mkdir /{}: not a directory", path));
    if (e.sys_errno() != ENOENT) throw;
  }
  const auto [parent_path, base] = split_last(path);
  make_directories(root, parent_path, looks, mode);
  const sys::Fd parent = open_directory(root, parent_path);
  if (::mkdirat(parent.get(), base.c_str(), mode) != 0) {
    if (errno == EEXIST) throw Error(Errc::conflict, fmt::format("mkdir /{}: not a directory", path));
    fail("mkdir", path);
  }
  set_new_looks(parent.get(), base, looks, looks.mode.fixed_bits().value_or(mode));
  return true;
}

}  // namespace gantry::buildops
