#include "runtime/propagation.hpp"

#include <climits>
#include <cstdlib>

#include <fmt/format.h>

#include "base/error.hpp"
#include "sys/mountinfo.hpp"

namespace gantry::runtime {

std::string required_root_propagation_blocking(const std::string& source, std::string_view propagation) {
  const bool shared = propagation == "shared" || propagation == "rshared";
  const bool slave = propagation == "slave" || propagation == "rslave";
  if (!shared && !slave) return {};
  char resolved[PATH_MAX];
  if (::realpath(source.c_str(), resolved) == nullptr) throw Error::from_errno(errno, "resolve " + source);
  const auto mounts = sys::list_mounts();
  const sys::MountInfo* mount = sys::find_mount_of(mounts, resolved);
  if (mount == nullptr) throw Error(Errc::internal, fmt::format("no mount contains {}", resolved));
  if (shared && !mount->shared)
    throw Error(Errc::invalid_argument,
                fmt::format("path {} is mounted on {} but it is not a shared mount", source, mount->mount_point));
  if (slave && !mount->shared && !mount->slave)
    throw Error(Errc::invalid_argument, fmt::format("path {} is mounted on {} but it is not a shared or slave mount",
                                                    source, mount->mount_point));
  return shared ? "shared" : "rslave";
}

std::string merge_root_propagation(std::string_view a, std::string_view b) {
  if (a == "shared" || b == "shared") return "shared";
  if (a == "rslave" || b == "rslave") return "rslave";
  return {};
}

}  // namespace gantry::runtime
