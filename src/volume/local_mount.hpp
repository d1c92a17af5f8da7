#pragma once

#include <map>
#include <string>
#include <string_view>

#include "sys/file.hpp"

namespace gantry::volume {

/// What the options of a "local" volume ask for: `type`, `o` and `device`, as for mount(8).
struct LocalMount {
  std::string type;
  std::string device;
  unsigned long flags = 0;  // MS_
  std::string data;         // what is not a flag, for the file system
  std::string address;      // the value of "addr=", to be looked up when mounting: an NFS server may move
};

/// Throws invalid_argument: `create <name>: invalid option: "x"`, `… missing required option: "device"`.
void validate_local_options(std::string_view name, const std::map<std::string, std::string>& options);

/// Requires options that passed validate_local_options and name a device.
LocalMount parse_local_options(const std::map<std::string, std::string>& options);

/// Mounts at `target`, which exists. Throws with mount(2)'s reason. Blocks for as long as the file system's server
/// takes; the kernel may not let go of it.
void mount_local_blocking(const LocalMount& mount, const sys::Path& target);

}  // namespace gantry::volume
