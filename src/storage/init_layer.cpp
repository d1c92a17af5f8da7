#include "storage/init_layer.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "storage/root_access.hpp"

namespace gantry::storage {

sys::Path init_layer_directory(const sys::Path& data_root) { return data_root / "init" / "diff"; }

void make_init_layer(const sys::Path& directory) {
  sys::make_directories(directory.parent_path(), 0700);
  sys::make_directories(directory, 0755);
  if (::chmod(directory.c_str(), 0755) != 0) throw Error::from_errno(errno, "chmod " + directory.string());
  const sys::Fd root = sys::open_file(directory, O_RDONLY | O_DIRECTORY);
  for (const char* path : {"/dev/pts", "/dev/shm", "/proc", "/sys"}) make_directory_in_root(root.get(), path, 0, 0);
  for (const char* path : {"/.dockerenv", "/dev/console", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}) {
    make_file_in_root(root.get(), path);
    const sys::Fd file = sys::open_in_root(root.get(), path, O_RDONLY);
    if (::fchmod(file.get(), 0755) != 0) throw Error::from_errno(errno, "chmod");
  }
  if (::symlinkat("/proc/mounts", root.get(), "etc/mtab") != 0 && errno != EEXIST)
    throw Error::from_errno(errno, "create /etc/mtab");
}

}  // namespace gantry::storage
