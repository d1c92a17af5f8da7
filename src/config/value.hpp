#pragma once

#include <string>
#include <vector>

#include <boost/json/fwd.hpp>

#include "config/options.hpp"

namespace gantry::config {

/// Why a value was not taken. `path` is where, below the option's key: "", ".crun.path", "[0].size".
struct Mistake {
  std::string path;
  Finding finding;
};

/// Sets the row's member from a value of daemon.json; leaves it alone if there is any mistake.
std::vector<Mistake> read_json(const Option& option, const boost::json::value& value, Config& config);
/// Sets the row's member from what was typed after its flag, in the order given; the last one counts for single values.
std::vector<Mistake> read_flag(const Option& option, const std::vector<std::string>& values, Config& config);

/// How Go prints a decoded JSON value with %v: "[a b]", "map[a:b]". dockerd's conflict message is made of it.
std::string render_as_go(const boost::json::value& value);

/// "a string", "a list" …, for messages.
std::string kind_name(const boost::json::value& value);

}  // namespace gantry::config
