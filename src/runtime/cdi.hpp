#pragma once

#include <string>
#include <vector>

#include "runtime/spec.hpp"

/// Devices that vendors describe in files: the Container Device Interface.
/// Source: github.com/cncf-tags/container-device-interface, SPEC.md (versions up to 1.0).
namespace gantry::runtime {

inline const std::vector<std::string> kDefaultCdiDirectories{"/etc/cdi", "/var/run/cdi"};

/// Puts the devices, named "vendor/class=name", into `spec`: their nodes, mounts, environment, groups and hooks, and
/// once per file what it says of all its devices. Descriptions are the files *.json and *.yaml of the directories (of
/// YAML what the generators write: block style); they are read anew each time, so a driver that is installed later is
/// seen. In a later directory they win over those in an earlier one; a file that cannot be read is passed over.
/// Throws internal: "CDI device injection failed: unresolvable CDI devices vendor/class=name". Blocks.
void inject_cdi_devices_blocking(ContainerSpec& spec, const std::vector<std::string>& directories,
                                 const std::vector<std::string>& devices, const HostFacts& facts);

/// The names of all devices that are described, and what is wrong with files; for `/info`. Blocks.
struct CdiInventory {
  std::vector<std::string> devices;   // sorted
  std::vector<std::string> warnings;  // "CDI: Error associated with spec file /etc/cdi/x.json: …"
};
CdiInventory list_cdi_devices_blocking(const std::vector<std::string>& directories);

}  // namespace gantry::runtime
