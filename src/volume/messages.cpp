#include "volume/messages.hpp"

#include <fmt/format.h>

#include "base/text.hpp"

namespace gantry::volume {

Error no_such_volume(std::string_view name) {
  return Error(Errc::not_found, fmt::format("get {}: no such volume", name));
}

Error volume_in_use(std::string_view name, std::string_view users) {
  return Error(Errc::conflict, fmt::format("remove {}: volume is in use - [{}]", name, users));
}

Error invalid_volume_name(std::string_view name) {
  return Error(Errc::invalid_argument,
               fmt::format("create {}: {} includes invalid characters for a local volume name, only "
                           "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use "
                           "absolute path",
                           name, quote(name)));
}

Error volume_name_too_short(std::string_view name) {
  return Error(
      Errc::invalid_argument,
      fmt::format("create {}: volume name is too short, names should be at least two alphanumeric characters", name));
}

Error volume_name_conflict(std::string_view name) {
  return Error(Errc::conflict, fmt::format("create {}: conflict: volume name must be unique", name));
}

Error no_such_driver(std::string_view name, std::string_view driver) {
  return Error(Errc::not_found, fmt::format("create {}: error looking up volume plugin {}: plugin {} not found", name,
                                            driver, quote(driver)));
}

}  // namespace gantry::volume
