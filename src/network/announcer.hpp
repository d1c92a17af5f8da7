#pragma once

#include <string>

#include "network/address.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"
#include "sys/netlink.hpp"

/// Addresses are given to others as soon as they are free, and every container has a MAC address of its own. Whoever
/// has talked to the old owner would go on sending to it until the kernel doubts its entry: half a minute.
namespace gantry::network {

/// Who has addresses from now on. Either address may be empty.
struct AddressOwner {
  MacAddress mac;
  IpAddress address;
  IpAddress address6;
};

/// Tells the containers on a bridge. Not for isolated ports: they reach each other through the host, and one that
/// learns its neighbour's own MAC sends where the bridge forwards nothing.
/// Closing such a socket costs the kernel a grace period (16 ms), so there is one for all announcements. Nothing is
/// thrown: who misses an announcement asks again by itself, later.
class Announcer {
 public:
  Announcer();
  /// IPv4, as often as one likes.
  void announce(const std::string& bridge, const AddressOwner& owner);
  /// IPv6, before the owner is on the bridge: hairpin ports get back what is sent to all, and the kernel complains
  /// about whoever advertises an address of its own. Neighbours believe this at once, so it is needed only once.
  void announce_v6(const std::string& bridge, const AddressOwner& owner);

 private:
  sys::Fd fd_;  // empty where the kernel has no packet sockets: neighbours then find out by themselves, later
};

/// Both families, out of an interface inside a sandbox: a macvlan has no bridge to send from. Blocks 16 ms; nothing
/// is sent if the sandbox or the interface is gone.
void announce_inside(const sys::Path& netns, const std::string& interface, const AddressOwner& owner);

/// Corrects what the host itself knows of the addresses, which announcements through a bridge do not reach.
void tell_host(sys::NetlinkSocket& host, const std::string& bridge, const AddressOwner& owner);

}  // namespace gantry::network
