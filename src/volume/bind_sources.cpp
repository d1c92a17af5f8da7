#include <cerrno>

#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "sys/file.hpp"
#include "volume/mount_spec.hpp"

namespace gantry::volume {

void check_bind_sources_blocking(const std::vector<MountPoint>& mounts) {
  for (const MountPoint& mount : mounts) {
    if (mount.type != MountType::bind || mount.create_source) continue;
    if (mount.origin == MountPoint::Origin::volumes_from) continue;  // checked for the donor
    struct stat st{};
    if (::stat(mount.source.c_str(), &st) == 0) continue;
    if (errno != ENOENT && errno != ENOTDIR) throw Error::from_errno(errno, "stat " + mount.source);
    throw Error(Errc::invalid_argument, fmt::format("invalid mount config for type \"bind\": bind source path does not "
                                                    "exist: {}",
                                                    mount.source));
  }
}

void create_bind_sources_blocking(const std::vector<MountPoint>& mounts) {
  for (const MountPoint& mount : mounts) {
    if (mount.type != MountType::bind || !mount.create_source) continue;
    struct stat st{};
    if (::stat(mount.source.c_str(), &st) == 0) continue;
    try {
      sys::make_directories(mount.source, 0755);
    } catch (Error& e) {
      e.prefix(fmt::format("error while creating mount source path '{}'", mount.source));
      throw;
    }
  }
}

}  // namespace gantry::volume
