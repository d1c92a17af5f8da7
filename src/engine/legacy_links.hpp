#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/container_store.hpp"
#include "engine/services.hpp"
#include "network/networks.hpp"

/// `docker run --link` in the default network: lines in /etc/hosts. In user-defined networks links are names that the
/// container's name server knows (EndpointSettings.Links). Texts are Docker's.
namespace gantry::engine {

/// Throws invalid_argument for a link that is malformed, to a container that does not exist or to one in host mode.
void validate_links(const ContainerStore& store, const Container& container);

/// The lines of a container that is about to start. Throws conflict if a linked container does not run,
/// invalid_argument if it is not in the default network.
std::vector<network::HostsLink> resolve_links(const ContainerStore& store, const network::Networks& networks,
                                              const Container& container);

/// Whoever is linked to this container, which has just got a new address, finds it there.
Task<void> update_links_to(Services& services, const ContainerStore& store, ContainerPtr target);

/// The further names that links give to containers, "parent/alias" without the first slash, by container id.
using LinkNames = std::map<std::string, std::vector<std::string>>;
LinkNames link_names(const ContainerStore& store);

/// `docker rm --link parent/alias`: takes the link out of the parent's settings, and returns the parent, which is to be
/// saved. Throws conflict for a container's own name, not_found.
ContainerPtr take_link(const ContainerStore& store, const std::string& name);

/// What Docker adds to the environment of a container with links: <ALIAS>_NAME, <ALIAS>_PORT_80_TCP_ADDR …,
/// <ALIAS>_ENV_<variable>. Throws as resolve_links().
std::vector<std::string> link_environment(const ContainerStore& store, const network::Networks& networks,
                                          const Container& container);

}  // namespace gantry::engine
