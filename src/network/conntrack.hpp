#pragma once

#include <cstdint>
#include <vector>

#include "network/address.hpp"

/// The kernel's memory of connections. Left alone, it sends packets of old flows to a container that has the address
/// now, and keeps UDP clients that were there first pinned to the host.
namespace gantry::network {

/// Forgets every flow from or to these addresses. Blocks  for a walk over the connection table (about a millisecond
/// with a hundred thousand entries). Does nothing where the kernel cannot filter (before Linux 5.8).
void forget_flows(const std::vector<IpAddress>& addresses);
/// Forgets flows to this UDP port of the host, so that they are looked at anew.
void forget_udp_flows(const std::vector<std::uint16_t>& host_ports);

}  // namespace gantry::network
