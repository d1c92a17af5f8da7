#include "network/sandbox.hpp"

#include <array>
#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "network/vlan.hpp"
#include "sys/namespace.hpp"

namespace gantry::network {
namespace {

int index_of(sys::NetlinkSocket& socket, const std::string& name) {
  auto link = sys::find_link(socket, name);
  if (!link) throw Error(Errc::internal, fmt::format("there is no interface {}", name));
  return link->index;
}

// The outer end, down, in place: the inner end is born in the namespace of the calling thread.
void create_pair(sys::NetlinkSocket& host, const InterfaceSpec& spec, int netns_fd) {
  auto bridge = sys::find_link(host, spec.bridge);
  if (!bridge) throw Error(Errc::internal, fmt::format("could not find bridge {}", spec.bridge));
  sys::NetlinkBatch batch;
  sys::VethSpec veth;
  veth.outer_name = spec.outer_name;
  veth.inner_name = spec.inner_name;
  veth.netns_fd = netns_fd;
  veth.master = bridge->index;
  veth.inner_mac = std::string(spec.mac.raw());
  veth.mtu = spec.mtu;
  sys::add_veth(batch, veth);
  // IPv6 address generation on every port makes attaching slower with each container (network.md §0).
  sys::add_no_ipv6_autoconf(batch, spec.outer_name);
  try {
    host.transact(std::move(batch));
  } catch (Error& e) {
    if (e.sys_errno() == EXFULL)
      throw Error(Errc::unavailable, fmt::format("bridge {} is full (1023 ports)", spec.bridge));
    throw;
  }
}

// The interface appears inside at once; nothing of it is outside.
void create_sub_interface(sys::NetlinkSocket& host, const InterfaceSpec& spec, int netns_fd) {
  auto parent = sys::find_link(host, spec.vlan.parent);
  if (!parent)
    throw Error(Errc::internal,
                fmt::format("the requested parent interface {} was not found on the Docker host", spec.vlan.parent));
  sys::SubInterfaceSpec sub;
  sub.name = spec.inner_name;
  sub.kind = spec.vlan_kind;
  sub.parent = parent->index;
  sub.netns_fd = netns_fd;
  sub.mtu = spec.mtu;
  sub.mode = vlan_mode_number(spec.vlan_kind, spec.vlan.mode);
  if (spec.vlan_kind == "macvlan") sub.mac = std::string(spec.mac.raw());
  else sub.flag = ipvlan_flag_number(spec.vlan.flag);
  sys::NetlinkBatch batch;
  sys::add_sub_interface(batch, sub);
  auto failures = host.send(std::move(batch));
  if (failures.empty()) return;
  Error e = sys::NetlinkSocket::to_error(failures.front());
  e.prefix(fmt::format("failed to create the {} port", spec.vlan_kind));
  throw e;
}

// Runs inside the namespace.
void configure_inner(sys::NetlinkSocket& inside, const InterfaceSpec& spec) {
  sys::NetlinkBatch names;
  sys::add_no_ipv6_autoconf(names, spec.inner_name);
  inside.transact(std::move(names));
  const std::string conf = "/proc/sys/net/ipv6/conf/" + spec.inner_name + "/disable_ipv6";
  // Without an IPv6 address there must not be any IPv6: a link-local address would let neighbours in
  // (CVE-2020-13401, CVE-2024-32473).
  if (auto now = sys::try_read_small(conf)) {
    const char* wanted = spec.address6.empty() ? "1" : "0";
    if (trim(*now) != wanted) sys::write_existing(conf, wanted);
  }
  for (const auto& [name, value] : spec.sysctls) sys::write_existing("/proc/sys/" + name, value);
  const int index = index_of(inside, spec.inner_name);
  sys::NetlinkBatch batch;
  if (!spec.address.empty()) sys::add_address(batch, index, spec.address.address.bytes(), spec.address.length);
  if (!spec.address6.empty()) sys::add_address(batch, index, spec.address6.address.bytes(), spec.address6.length);
  for (const Cidr& extra : spec.link_local) sys::add_address(batch, index, extra.address.bytes(), extra.length);
  sys::add_link_change(batch, {.index = index, .name = spec.inner_name, .up = true});
  for (const auto& [family, route] : {std::pair(AF_INET, &spec.route4), {AF_INET6, &spec.route6}})
    if (!route->interface.empty()) sys::add_default_route(batch, index, family, route->gateway.bytes());
  inside.transact(std::move(batch));
}

// Last, so that the bridge sees the port with carrier and forwards at once.
void set_outer_up(sys::NetlinkSocket& host, const InterfaceSpec& spec) {
  const int index = index_of(host, spec.outer_name);
  sys::NetlinkBatch batch;
  sys::add_bridge_port_flags(batch, index, {.hairpin = true, .isolated = spec.isolated});
  sys::add_link_change(batch, {.index = index, .name = spec.outer_name, .up = true});
  host.transact(std::move(batch));
}

void build_interface(sys::NetlinkSocket& host, sys::NetlinkSocket& inside, int netns_fd, const InterfaceSpec& spec) {
  if (!spec.vlan_kind.empty()) {
    create_sub_interface(host, spec, netns_fd);
    FAILPOINT("network.sandbox.after_sub_interface");
    configure_inner(inside, spec);
    sys::wait_for_carrier(inside, spec.inner_name);
    return;
  }
  create_pair(host, spec, netns_fd);
  FAILPOINT("network.sandbox.after_veth");
  configure_inner(inside, spec);
  set_outer_up(host, spec);
  // From the inside out: each one's carrier is what the next one's comes from. Whoever connects right after the start
  // would otherwise lose a first packet, and a second with it.
  sys::wait_for_carrier(inside, spec.inner_name);
  sys::wait_for_carrier(host, spec.outer_name);
  sys::wait_for_carrier(host, spec.bridge);
}

AddressOwner owner_of(const InterfaceSpec& spec) { return {spec.mac, spec.address.address, spec.address6.address}; }

void loopback_up(sys::NetlinkSocket& inside) {
  sys::NetlinkBatch batch;
  sys::add_link_change(batch, {.name = "lo", .up = true});
  inside.transact(std::move(batch));
}

}  // namespace

void announce_before(Announcer& announcer, const InterfaceSpec& interface) {
  if (interface.announced) announcer.announce_v6(interface.bridge, owner_of(interface));
}

void announce_after(Announcer& announcer, sys::NetlinkSocket& host, const InterfaceSpec& interface) {
  if (interface.announced) announcer.announce(interface.bridge, owner_of(interface));
  tell_host(host, interface.bridge, owner_of(interface));
}

void create_sandbox(sys::NetlinkSocket& host, const sys::Path& path, const std::vector<InterfaceSpec>& interfaces,
                    const sys::Path& user_namespace) {
  const auto build = [&] {
    sys::NetlinkSocket inside(NETLINK_ROUTE);
    loopback_up(inside);
    if (interfaces.empty()) return;
    sys::Fd netns = sys::open_file("/proc/thread-self/ns/net", O_RDONLY);
    for (const auto& spec : interfaces) build_interface(host, inside, netns.get(), spec);
  };
  sys::create_netns(path, build, user_namespace);
}

void add_interface(sys::NetlinkSocket& host, const sys::Path& path, const InterfaceSpec& interface) {
  try {
    sys::enter_netns(path, [&] {
      sys::NetlinkSocket inside(NETLINK_ROUTE);
      sys::Fd netns = sys::open_file("/proc/thread-self/ns/net", O_RDONLY);
      build_interface(host, inside, netns.get(), interface);
    });
  } catch (const Error&) {
    if (interface.vlan_kind.empty()) remove_interface(host, interface.outer_name);
    else remove_inner_interface(path, interface.inner_name);
    throw;
  }
}

void remove_interface(sys::NetlinkSocket& host, const std::string& outer_name) {
  sys::NetlinkBatch batch;
  sys::add_remove_link(batch, outer_name);
  auto failures = host.send(std::move(batch));
  if (!failures.empty() && failures.front().error != ENODEV) throw sys::NetlinkSocket::to_error(failures.front());
}

void remove_inner_interface(const sys::Path& path, const std::string& inner_name) {
  if (!sys::is_netns(path)) return;
  sys::enter_netns(path, [&] {
    sys::NetlinkSocket inside(NETLINK_ROUTE);
    remove_interface(inside, inner_name);
  });
}

void set_gateways(const sys::Path& path, const DefaultRoute& v4, const DefaultRoute& v6) {
  sys::enter_netns(path, [&] {
    sys::NetlinkSocket inside(NETLINK_ROUTE);
    sys::NetlinkBatch removals, batch;
    for (const auto& [family, route] : {std::pair(AF_INET, &v4), {AF_INET6, &v6}}) {
      if (route->interface.empty()) sys::add_remove_default_route(removals, family);
      else sys::add_default_route(batch, index_of(inside, route->interface), family, route->gateway.bytes());
    }
    for (const auto& failure : inside.send(std::move(removals))) {
      if (failure.error != ESRCH && failure.error != ENOENT) throw sys::NetlinkSocket::to_error(failure);
    }
    inside.transact(std::move(batch));
  });
}

void remove_sandbox(sys::NetlinkSocket& host, const sys::Path& path, const std::vector<std::string>& outer_names) {
  for (const auto& name : outer_names) {
    auto link = sys::find_link(host, name);
    if (!link || link->master == 0) continue;
    // Until the kernel gets to it, the dead container must not answer for an address that may have a new owner.
    sys::NetlinkBatch batch;
    sys::add_bridge_port_flags(batch, link->index, {.enabled = false});
    host.send(std::move(batch));
  }
  sys::remove_netns(path);
}

}  // namespace gantry::network
