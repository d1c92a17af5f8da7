#include "network/bridge.hpp"

#include <algorithm>
#include <cerrno>

#include <net/if.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/file.hpp"

namespace gantry::network {
namespace {

// True if it had another value. Missing where the kernel was built or booted without IPv6.
bool write_sysctl_if_there(const std::string& path, std::string_view value) {
  const auto now = sys::try_read_small(path);
  if (!now || trim(*now) == value) return false;
  sys::write_existing(path, value);
  return true;
}

std::vector<Cidr> addresses_of(sys::NetlinkSocket& socket, int link) {
  std::vector<Cidr> out;
  for (const auto& info : sys::list_addresses(socket)) {
    if (info.link == link) out.push_back({IpAddress::from_bytes(info.address), info.prefix_length});
  }
  return out;
}

/// Paths below /proc/sys and what they must say.
std::vector<std::pair<std::string, std::string>> bridge_sysctls(const BridgeSpec& spec) {
  const std::string v6 = "net/ipv6/conf/" + spec.name;
  std::vector<std::pair<std::string, std::string>> out{{v6 + "/accept_ra", "0"},
                                                       {v6 + "/disable_ipv6", spec.ipv6 ? "0" : "1"}};
  if (!spec.proxy_arp) return out;
  const std::string v4 = "net/ipv4/conf/" + spec.name;
  out.emplace_back(v4 + "/proxy_arp_pvlan", "1");
  out.emplace_back(v4 + "/send_redirects", "0");
  return out;
}

/// With a link-local one beside IPv6 addresses. A router asks for a neighbour's MAC address in the name of a packet's
/// sender if that is the interface's own address, and else of its link-local address (ndisc_solicit() in Linux).
/// Without one it does not ask at all: whoever comes from elsewhere does not reach a container that has not spoken yet.
std::vector<Cidr> wanted_addresses(const BridgeSpec& spec) {
  std::vector<Cidr> out = spec.addresses;
  const auto is_v6 = [](const Cidr& cidr) { return cidr.address.is_v6(); };
  if (spec.owned && std::any_of(out.begin(), out.end(), is_v6)) out.push_back({IpAddress::parse("fe80::1"), 64});
  return out;
}

int create_bridge(sys::NetlinkSocket& socket, const BridgeSpec& spec) {
  sys::NetlinkBatch batch;
  // Multicast snooping makes each port flood and query; without IPv6 nothing needs it (network.md §10).
  sys::add_bridge(batch, spec.name, spec.mac.raw(), spec.mtu, spec.ipv6);
  sys::add_no_ipv6_autoconf(batch, spec.name);
  socket.transact(std::move(batch));
  auto link = sys::find_link(socket, spec.name);
  if (!link) throw Error(Errc::internal, fmt::format("bridge {} vanished while it was made", spec.name));
  return link->index;
}

/// Somebody may have given our bridge another name: its MAC address is one that we made up. What is connected to it
/// stays so.
bool rename_back(sys::NetlinkSocket& socket, const BridgeSpec& spec) {
  if (!spec.owned) return false;
  for (const auto& link : sys::list_links(socket)) {
    if (link.kind != "bridge" || link.mac != spec.mac.raw()) continue;
    const auto rename = [&] {
      sys::NetlinkBatch batch;
      sys::add_link_change(batch, {.index = link.index, .name = link.name, .new_name = spec.name});
      return socket.send(std::move(batch)).empty();
    };
    if (rename()) return true;
    // Before Linux 6.2 an interface had to be down for this.
    sys::NetlinkBatch down;
    sys::add_link_change(down, {.index = link.index, .name = link.name, .up = false});
    socket.transact(std::move(down));
    return rename();
  }
  return false;
}

}  // namespace

int ensure_bridge(sys::NetlinkSocket& socket, const BridgeSpec& spec, std::vector<std::string>& changes) {
  auto link = sys::find_link(socket, spec.name);
  if (!link && rename_back(socket, spec)) {
    link = sys::find_link(socket, spec.name);
    changes.push_back(fmt::format("gave bridge {} its name", spec.name));
  }
  if (link && link->kind != "bridge")
    throw Error(Errc::conflict, fmt::format("existing interface {} is not a bridge", spec.name));
  int index = link ? link->index : 0;
  const bool made = !link;
  if (made) {
    index = create_bridge(socket, spec);
    changes.push_back(fmt::format("made bridge {}", spec.name));
  }
  // Before the addresses: without IPv6 there are none of it.
  for (const auto& [name, value] : bridge_sysctls(spec)) {
    if (write_sysctl_if_there("/proc/sys/" + name, value) && !made)
      changes.push_back(fmt::format("set {} of bridge {} to {}", name.substr(name.rfind('/') + 1), spec.name, value));
  }
  sys::NetlinkBatch batch;
  const auto present = addresses_of(socket, index);
  for (const Cidr& address : wanted_addresses(spec)) {
    if (std::find(present.begin(), present.end(), address) != present.end()) continue;
    sys::add_address(batch, index, address.address.bytes(), address.length);
    if (!made) changes.push_back(fmt::format("gave bridge {} its address {}", spec.name, address.str()));
  }
  if (!made && spec.owned && link->mac != spec.mac.raw()) {
    sys::add_link_change(batch, {.index = index, .name = spec.name, .mac = std::string(spec.mac.raw())});
    changes.push_back(fmt::format("gave bridge {} its MAC address {}", spec.name, spec.mac.str()));
  }
  if (made || !link->up) {
    sys::add_link_change(batch, {.index = index, .name = spec.name, .up = true});
    if (!made) changes.push_back(fmt::format("set bridge {} up", spec.name));
  }
  socket.transact(std::move(batch));
  return index;
}

void remove_bridge(sys::NetlinkSocket& socket, const std::string& name) {
  sys::NetlinkBatch batch;
  sys::add_remove_link(batch, name);
  auto failures = socket.send(std::move(batch));
  if (!failures.empty() && failures.front().error != ENODEV) throw sys::NetlinkSocket::to_error(failures.front());
}

bool has_wrong_flags(const sys::LinkInfo& link, bool isolated) {
  if (!link.port) return false;
  // A port without carrier is disabled by the bridge itself.
  return !link.port->hairpin.value_or(true) || link.port->isolated.value_or(isolated) != isolated ||
         !link.port->usual.value_or(true) || (link.running && !link.port->enabled.value_or(true));
}

bool ensure_port(sys::NetlinkSocket& socket, const std::string& interface, int bridge, bool isolated, bool& changed) {
  auto link = sys::find_link(socket, interface);
  if (!link) return false;
  const bool wrong_flags = link->master == bridge && has_wrong_flags(*link, isolated);
  if (link->master == bridge && link->up && !wrong_flags) return true;
  changed = true;
  sys::NetlinkBatch batch;
  if (link->master != bridge) sys::add_link_change(batch, {.index = link->index, .name = interface, .master = bridge});
  sys::BridgePortFlags flags{.hairpin = true, .isolated = isolated};
  if (wrong_flags) flags.usual = true;
  if (wrong_flags && link->running) flags.enabled = true;
  sys::add_bridge_port_flags(batch, link->index, flags);
  if (!link->up) sys::add_link_change(batch, {.index = link->index, .name = interface, .up = true});
  socket.transact(std::move(batch));
  return true;
}

std::vector<Cidr> occupied_subnets(sys::NetlinkSocket& socket, const std::string& resolv_conf,
                                   const std::vector<std::string>& ignore_interfaces) {
  std::vector<int> ignored;
  for (const auto& name : ignore_interfaces) {
    if (unsigned index = ::if_nametoindex(name.c_str())) ignored.push_back(static_cast<int>(index));
  }
  std::vector<Cidr> out;
  for (const auto& route : sys::list_routes(socket)) {
    // 0.0.0.0/1 and 128.0.0.0/1 are default routes in disguise (VPNs).
    if (route.prefix_length <= 1 || std::find(ignored.begin(), ignored.end(), route.link) != ignored.end()) continue;
    const Cidr cidr{IpAddress::from_bytes(route.destination), route.prefix_length};
    if (!cidr.empty() && !cidr.address.is_link_local()) out.push_back(cidr);
  }
  for (const auto& line : split(resolv_conf, '\n')) {
    auto [word, rest] = split_once(trim(line), ' ');
    if (word != "nameserver") continue;
    if (auto ip = IpAddress::find(trim(rest))) out.push_back({*ip, ip->is_v6() ? 128u : 32u});
  }
  return out;
}

std::vector<Cidr> interface_addresses(sys::NetlinkSocket& socket, const std::string& interface) {
  auto link = sys::find_link(socket, interface);
  if (!link) return {};
  std::vector<Cidr> out = addresses_of(socket, link->index);
  std::erase_if(out, [](const Cidr& cidr) { return cidr.address.is_link_local(); });
  return out;
}

void remove_addresses(sys::NetlinkSocket& socket, const std::string& interface, const std::vector<Cidr>& addresses) {
  auto link = sys::find_link(socket, interface);
  if (!link) return;
  sys::NetlinkBatch batch;
  for (const Cidr& address : addresses)
    sys::add_remove_address(batch, link->index, address.address.bytes(), address.length);
  for (const auto& failure : socket.send(std::move(batch)))
    if (failure.error != EADDRNOTAVAIL) throw sys::NetlinkSocket::to_error(failure);
}

bool enable_forwarding(Family family) {
  const char* path = family == Family::v4 ? "/proc/sys/net/ipv4/ip_forward" : "/proc/sys/net/ipv6/conf/all/forwarding";
  auto now = sys::try_read_small(path);
  if (!now || trim(*now) == "1") return false;
  sys::write_existing(path, "1");
  return true;
}

}  // namespace gantry::network
