#pragma once

#include <map>
#include <string>

#include "base/time.hpp"

namespace gantry::events {

/// Something that happened to an object, in Docker's terms.
struct Event {
  std::string type;    // container, image, network, volume, daemon, builder
  std::string action;  // create, start, die …; may carry a detail ("health_status: healthy")
  std::string actor_id;
  std::map<std::string, std::string> attributes;
  std::string scope = "local";
  Timestamp time{};
};

}  // namespace gantry::events
