#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"

/// Texts that clients match. Source: engine-api.md §2.6 and §2.1.
namespace gantry::volume {

Error no_such_volume(std::string_view name);                         // get <name>: no such volume
Error volume_in_use(std::string_view name, std::string_view users);  // remove <name>: volume is in use - [<ids>]
Error invalid_volume_name(std::string_view name);
Error volume_name_too_short(std::string_view name);
Error volume_name_conflict(std::string_view name);  // create <name>: conflict: …
Error no_such_driver(std::string_view name, std::string_view driver);

}  // namespace gantry::volume
