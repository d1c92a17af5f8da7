#pragma once

#include <optional>
#include <string>
#include <vector>

#include "network/address.hpp"
#include "sys/netlink.hpp"

/// The bridges of networks and what surrounds them on the host. All of this blocks for microseconds on netlink and
/// belongs in the net lane.
namespace gantry::network {

struct BridgeSpec {
  std::string name;
  MacAddress mac;
  bool owned = true;            // false: somebody else's; its MAC address is not put back
  std::vector<Cidr> addresses;  // the host's addresses in the networks' subnets; none: the host has no part in it
  unsigned mtu = 0;
  bool ipv6 = false;
  /// The host answers for the bridge's ports, which cannot reach each other, and forwards what the firewall lets pass.
  bool proxy_arp = false;
};

/// Makes the bridge if it is missing and brings what is there in line: kind, addresses (with IPv6 also fe80::1), up.
/// Returns its index; `changes` gets a sentence for everything that had to be put right. Throws if the name belongs to
/// something that is no bridge.
int ensure_bridge(sys::NetlinkSocket& socket, const BridgeSpec& spec, std::vector<std::string>& changes);

/// Removes the bridge if it is there.
void remove_bridge(sys::NetlinkSocket& socket, const std::string& name);

/// Makes `interface` a port of the bridge again if it is not. False if there is no such interface.
/// True if a port of ours has flags that break something: it must have hairpin mode, be isolated or not, and otherwise
/// do what ports usually do.
bool has_wrong_flags(const sys::LinkInfo& link, bool isolated);
bool ensure_port(sys::NetlinkSocket& socket, const std::string& interface, int bridge, bool isolated, bool& changed);

/// Subnets that new networks must not take: routes other than default ones, and the host's name servers.
/// `ignore_interfaces`: routes over them do not count.
std::vector<Cidr> occupied_subnets(sys::NetlinkSocket& socket, const std::string& resolv_conf,
                                   const std::vector<std::string>& ignore_interfaces);

/// The interface's addresses that are not link-local.
std::vector<Cidr> interface_addresses(sys::NetlinkSocket& socket, const std::string& interface);
/// Takes these away from the interface if it has them.
void remove_addresses(sys::NetlinkSocket& socket, const std::string& interface, const std::vector<Cidr>& addresses);

/// Switches the host's forwarding on. True if it was off.
bool enable_forwarding(Family family);

}  // namespace gantry::network
