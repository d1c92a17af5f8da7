#include "session/go_mode.hpp"

#include <sys/stat.h>

#include "base/error.hpp"

namespace gantry::session {

mode_t to_st_mode(std::uint32_t go_mode) {
  mode_t mode = go_mode & 0777;
  if ((go_mode & kGoSetuid) != 0) mode |= S_ISUID;
  if ((go_mode & kGoSetgid) != 0) mode |= S_ISGID;
  if ((go_mode & kGoSticky) != 0) mode |= S_ISVTX;
  switch (go_mode & kGoTypes) {
    case 0: return mode | S_IFREG;
    case kGoDirectory: return mode | S_IFDIR;
    case kGoSymlink: return mode | S_IFLNK;
    case kGoFifo: return mode | S_IFIFO;
    case kGoDevice: return mode | S_IFBLK;
    case kGoDevice | kGoCharDevice: return mode | S_IFCHR;
    default: throw Error(Errc::invalid_argument, "invalid file type in mode " + std::to_string(go_mode));
  }
}

std::uint32_t to_go_mode(mode_t st_mode) noexcept {
  std::uint32_t mode = st_mode & 0777;
  if ((st_mode & S_ISUID) != 0) mode |= kGoSetuid;
  if ((st_mode & S_ISGID) != 0) mode |= kGoSetgid;
  if ((st_mode & S_ISVTX) != 0) mode |= kGoSticky;
  switch (st_mode & S_IFMT) {
    case S_IFREG: return mode;
    case S_IFDIR: return mode | kGoDirectory;
    case S_IFLNK: return mode | kGoSymlink;
    case S_IFIFO: return mode | kGoFifo;
    case S_IFBLK: return mode | kGoDevice;
    case S_IFCHR: return mode | kGoDevice | kGoCharDevice;
    case S_IFSOCK: return mode | kGoSocket;
    default: return mode | kGoIrregular;
  }
}

}  // namespace gantry::session
