#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gantry::volume {

/// The third part of a `-v` ("ro,z,rslave,nocopy"), taken apart.
struct MountMode {
  bool read_only = false;
  bool no_copy = false;
  std::string propagation;  // empty: not given
};

/// nullopt if a word is unknown or two of one kind are given.
std::optional<MountMode> parse_mount_mode(std::string_view text);

/// "rprivate", "shared" … : one of the six.
bool is_propagation(std::string_view text);

}  // namespace gantry::volume
