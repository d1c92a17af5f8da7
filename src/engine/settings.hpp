#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"
#include "engine/container.hpp"
#include "network/types.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/resources.hpp"
#include "runtime/spec.hpp"
#include "volume/volumes.hpp"

/// From what a client asks for to what a container is: merging with the image, checking, and writing down every default
/// so that inspect shows it. Pure functions; texts are Docker's. All throw invalid_argument.
namespace gantry::engine {

/// Fills from the image what the request leaves open. Docker's rules: lists of variables, ports, volumes and labels are
/// joined, a request's entry wins; Cmd is inherited only with the image's Entrypoint; `Entrypoint [""]` resets both.
void merge_image_config(model::ContainerConfig& config, const model::ContainerConfig& image);

void validate_config(const model::ContainerConfig& config);

/// Checks the host's side and fills in Docker's defaults. Returns warnings.
std::vector<std::string> validate_host_config(const model::ContainerConfig& config, model::HostConfig& host,
                                              const config::Config& daemon, const runtime::HostFacts& facts);

/// The same struct in the runtime's terms.
runtime::Resources to_runtime_resources(const model::Resources& resources);
void from_runtime_resources(const runtime::Resources& from, model::Resources& into);
std::vector<runtime::Ulimit> to_runtime_ulimits(const model::Resources& resources);

/// "no", "always", "unless-stopped", "on-failure"; fills in "no".
void validate_restart_policy(model::RestartPolicy& policy, bool auto_remove);

/// One network's settings in the network module's terms.
network::EndpointSettings to_network_settings(const model::EndpointSettings& from);
/// What the network module needs of a container.
network::AttachRequest make_attach_request(const Container& container, const sys::Path& directory);

/// What the event of a volume's mount tells.
volume::VolumeUse volume_use(const volume::MountPoint& mount);

/// The other container of "container:<x>", or empty.
std::string joined_container(const std::string& mode);

}  // namespace gantry::engine
