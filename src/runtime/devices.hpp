#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/spec.hpp"

namespace gantry::runtime {

/// HostConfig.Devices: one entry as the user wrote it.
struct DeviceRequest {
  std::string path_on_host;
  std::string path_in_container;  // empty: the same
  std::string permissions;        // of "rwm"; empty: all three
};

struct ResolvedDevices {
  std::vector<Device> devices;
  std::vector<DeviceRule> rules;
};

/// Checks what can be checked without looking at the host. Throws invalid_argument.
void validate_device_request(const DeviceRequest& request);

/// Looks a request up on the host: a node, what a symbolic link leads to, or every node below a directory.
/// Blocks for a few lstat. Throws as Docker words it: `error gathering device information while adding custom device
/// "/dev/x": no such file or directory` or `…: not a device node`.
ResolvedDevices resolve_device_blocking(const DeviceRequest& request);

/// Every device node below /dev, for privileged containers: pts, shm, fd, mqueue and consoles are left out.
std::vector<Device> list_host_devices_blocking();

/// "c 1:3 mr" or "a *:* rwm". Throws invalid_argument: `invalid device cgroup rule format: 'x'`.
DeviceRule parse_device_rule(std::string_view text);

/// Fills in the numbers of the block devices that `resources` names by path.
/// Throws invalid_argument: "no such file or directory" with the path, or that it is no block device.
void resolve_block_devices_blocking(Resources& resources);

}  // namespace gantry::runtime
