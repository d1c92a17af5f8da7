#include "buildops/exec_directory.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "storage/tree.hpp"
#include "sys/mount.hpp"

namespace gantry::buildops {

ExecDirectory::ExecDirectory(const sys::Path& run_directory, const std::string& id)
    : path_(run_directory / "exec" / id) {
  sys::make_directories(path_, 0700);
  try {
    const sys::Fd memory = sys::make_mount("tmpfs", {"mode=0700", "size=64m"});
    sys::attach_mount(memory.get(), path_);
  } catch (...) {
    (void)::rmdir(path_.c_str());
    throw;
  }
}

ExecDirectory::~ExecDirectory() {
  try {
    sys::unmount_all(path_);
  } catch (const Error&) {
    // It stays until the worker's mount namespace goes.
  }
  (void)::rmdir(path_.c_str());
}

sys::Path ExecDirectory::write(const std::string& name, std::string_view content, mode_t mode, uid_t uid, gid_t gid) {
  const sys::Path path = path_ / name;
  const sys::Fd file = sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  sys::write_all(file.get(), content);
  if (::fchown(file.get(), uid, gid) != 0 || ::fchmod(file.get(), mode) != 0)
    throw Error::from_errno(errno, fmt::format("set owner and mode of {}", name));
  return path;
}

sys::Path ExecDirectory::pin(int source) {
  const sys::Path path = path_ / fmt::format("mount-{}", ++pinned_);
  if (S_ISDIR(storage::get_stat(source).st_mode)) sys::make_directories(path);
  else (void)sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  const sys::Fd clone = sys::clone_mount(source, false);
  sys::attach_mount(clone.get(), path);
  return path;
}

}  // namespace gantry::buildops
