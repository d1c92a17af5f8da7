#pragma once

#include <cstdint>
#include <string>

#include "sys/netlink.hpp"

/// The host's interfaces that macvlan and ipvlan networks put their containers on. Blocks for microseconds on netlink;
/// belongs in the net lane.
namespace gantry::network {

/// "dm-<12 digits>": the parent of a network that names none.
std::string dummy_parent(const std::string& network_id);
bool is_dummy_parent(const std::string& parent);

/// Throws not_implemented, naming the kernel's option, if this kernel has no such interfaces.
void require_vlan_kind(sys::NetlinkSocket& socket, const std::string& kind);

/// Makes the parent if it is missing and can be made: a dummy interface, or a VLAN ("eth0.10"). True if it did.
/// Throws internal with Docker's texts, or not_implemented if the kernel lacks what it takes.
bool ensure_parent(sys::NetlinkSocket& socket, const std::string& parent);
/// Removes a parent that ensure_parent() made; fine if it is gone.
void remove_parent(sys::NetlinkSocket& socket, const std::string& parent);

/// MACVLAN_MODE_* or IPVLAN_MODE_* of linux/if_link.h.
std::uint32_t vlan_mode_number(const std::string& kind, const std::string& mode);
std::uint16_t ipvlan_flag_number(const std::string& flag);

}  // namespace gantry::network
