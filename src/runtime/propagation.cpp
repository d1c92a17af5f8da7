#include "runtime/propagation.hpp"

#include <climits>
#include <cstdlib>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "sys/mount.hpp"

namespace gantry::runtime {
namespace {

/// The mount that `path` (links resolved) lies on: the deepest mount point above it, the last one of equals.
const sys::MountInfo* find_mount_of(const std::vector<sys::MountInfo>& mounts, std::string_view path) {
  const sys::MountInfo* best = nullptr;
  for (const sys::MountInfo& mount : mounts) {
    const std::string& point = mount.mount_point.native();
    const bool contains = point == "/" || path == point ||
                          (path.starts_with(point) && path.size() > point.size() && path[point.size()] == '/');
    if (contains && (best == nullptr || point.size() >= best->mount_point.native().size())) best = &mount;
  }
  return best;
}

}  // namespace

std::string required_root_propagation_blocking(const std::string& source, std::string_view propagation) {
  const bool shared = propagation == "shared" || propagation == "rshared";
  const bool slave = propagation == "slave" || propagation == "rslave";
  if (!shared && !slave) return {};
  char resolved[PATH_MAX];
  if (::realpath(source.c_str(), resolved) == nullptr) throw Error::from_errno(errno, "resolve " + source);
  const auto mounts = sys::list_mounts();
  const sys::MountInfo* mount = find_mount_of(mounts, resolved);
  if (mount == nullptr) throw Error(Errc::internal, fmt::format("no mount contains {}", resolved));
  const bool is_shared = mount->optional.find("shared:") != std::string::npos;
  const bool is_slave = mount->optional.find("master:") != std::string::npos;
  if (shared && !is_shared)
    throw Error(Errc::invalid_argument, fmt::format("path {} is mounted on {} but it is not a shared mount", source,
                                                    mount->mount_point.native()));
  if (slave && !is_shared && !is_slave)
    throw Error(Errc::invalid_argument, fmt::format("path {} is mounted on {} but it is not a shared or slave mount",
                                                    source, mount->mount_point.native()));
  return shared ? "shared" : "rslave";
}

std::string merge_root_propagation(std::string_view a, std::string_view b) {
  if (a == "shared" || b == "shared") return "shared";
  if (a == "rslave" || b == "rslave") return "rslave";
  return {};
}

}  // namespace gantry::runtime
