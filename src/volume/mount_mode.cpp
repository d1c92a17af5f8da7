#include "volume/mount_mode.hpp"

#include "base/text.hpp"

namespace gantry::volume {

bool is_propagation(std::string_view text) {
  for (const char* known : {"private", "rprivate", "slave", "rslave", "shared", "rshared"})
    if (text == known) return true;
  return false;
}

std::optional<MountMode> parse_mount_mode(std::string_view text) {
  MountMode mode;
  if (text.empty()) return mode;
  int access = 0, label = 0, consistency = 0, propagation = 0, copy = 0;
  for (const std::string& word : split(text, ',')) {
    if (word == "ro" || word == "rw") {
      ++access;
      mode.read_only = word == "ro";
    } else if (word == "z" || word == "Z") {
      ++label;
    } else if (word == "consistent" || word == "cached" || word == "delegated") {
      ++consistency;
    } else if (is_propagation(word)) {
      ++propagation;
      mode.propagation = word;
    } else if (word == "nocopy") {
      ++copy;
      mode.no_copy = true;
    } else {
      return std::nullopt;
    }
  }
  if (access > 1 || label > 1 || consistency > 1 || propagation > 1 || copy > 1) return std::nullopt;
  return mode;
}

}  // namespace gantry::volume
