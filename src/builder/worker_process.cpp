#include "builder/worker_process.hpp"

#include <sched.h>
#include <cerrno>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "sys/mount.hpp"

namespace gantry::builder {

void enter_mount_namespace() {
  if (::unshare(CLONE_NEWNS) != 0) throw Error::from_errno(errno, "make a mount namespace");
  sys::mount_classic("none", "/", "", MS_REC | MS_SLAVE, "");
}

void drop_mounts_below(const sys::Path& directory) { (void)sys::unmount_all(directory); }

sys::Fd lock_build_cache(const sys::Path& directory) {
  sys::make_directories(directory, 0700);
  sys::Fd file(::open((directory / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) throw Error::from_errno(errno, fmt::format("open {}", (directory / "lock").string()));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
  if (errno != EWOULDBLOCK) throw Error::from_errno(errno, "lock the build cache");
  throw Error(Errc::unavailable, fmt::format("another builder uses {}", directory.string()));
}

}  // namespace gantry::builder
