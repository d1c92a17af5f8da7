#pragma once

#include <optional>
#include <string>
#include <vector>

#include "network/address.hpp"
#include "network/announcer.hpp"
#include "network/network_options.hpp"
#include "sys/file.hpp"
#include "sys/netlink.hpp"

/// A container's network namespace and its interfaces. All of this blocks (about two milliseconds) and belongs in the
/// net lane.
namespace gantry::network {

/// Where one family's default route of a container goes: out of an interface, to a gateway or straight to the link.
struct DefaultRoute {
  std::string interface;  // empty: there is none
  IpAddress gateway;
};

/// One interface of a container: a veth pair whose outer end is a port of the network's bridge; or, where `vlan_kind`
/// is "macvlan" or "ipvlan", an interface on one of the host's own, of which nothing is outside.
struct InterfaceSpec {
  std::string outer_name;
  std::string inner_name;
  std::string bridge;
  std::string vlan_kind;
  VlanOptions vlan;
  MacAddress mac;
  Cidr address;  // empty: none
  Cidr address6;
  std::vector<Cidr> link_local;
  DefaultRoute route4;
  DefaultRoute route6;
  unsigned mtu = 0;
  bool isolated = false;                                     // may not talk to the bridge's other isolated ports
  bool announced = true;                                     // the bridge's other ports are told of its addresses
  std::vector<std::pair<std::string, std::string>> sysctls;  // path below /proc/sys and value
};

/// What has to be said on its bridge before and after the interface has come up (announcer.hpp).
void announce_before(Announcer& announcer, const InterfaceSpec& interface);
void announce_after(Announcer& announcer, sys::NetlinkSocket& host, const InterfaceSpec& interface);

/// Makes the namespace on `path` with a loopback interface and these interfaces. On failure nothing is left.
/// `user_namespace`: whose it is; empty: the host's.
void create_sandbox(sys::NetlinkSocket& host, const sys::Path& path, const std::vector<InterfaceSpec>& interfaces,
                    const sys::Path& user_namespace = {});

/// Adds an interface to a sandbox whose container runs.
void add_interface(sys::NetlinkSocket& host, const sys::Path& path, const InterfaceSpec& interface);
/// Takes it away again; fine if it is gone.
void remove_interface(sys::NetlinkSocket& host, const std::string& outer_name);
/// The same for one that is only inside.
void remove_inner_interface(const sys::Path& path, const std::string& inner_name);
void set_gateways(const sys::Path& path, const DefaultRoute& v4, const DefaultRoute& v6);

/// Ends the sandbox. Its interfaces are cut off from their bridges at once; the kernel removes them afterwards, in its
/// own time, with the namespace (removing a veth pair directly costs 15 ms, performance.md §1).
void remove_sandbox(sys::NetlinkSocket& host, const sys::Path& path, const std::vector<std::string>& outer_names);

}  // namespace gantry::network
