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

void write_sysctl_if_there(const std::string& path, std::string_view value) {
  // Missing where the kernel was built or booted without IPv6.
  if (auto now = sys::try_read_small(path); now && trim(*now) != value) sys::write_existing(path, value);
}

std::vector<Cidr> addresses_of(sys::NetlinkSocket& socket, int link) {
  std::vector<Cidr> out;
  for (const auto& info : sys::list_addresses(socket)) {
    if (info.link == link) out.push_back({IpAddress::from_bytes(info.address), info.prefix_length});
  }
  return out;
}

int create_bridge(sys::NetlinkSocket& socket, const BridgeSpec& spec) {
  sys::NetlinkBatch batch;
  // Multicast snooping makes each port flood and query; without IPv6 nothing needs it (network.md §10).
  sys::add_bridge(batch, spec.name, spec.mac.raw(), spec.mtu, spec.ipv6);
  sys::add_no_ipv6_autoconf(batch, spec.name);
  socket.transact(std::move(batch));
  const std::string conf = "/proc/sys/net/ipv6/conf/" + spec.name;
  write_sysctl_if_there(conf + "/accept_ra", "0");
  write_sysctl_if_there(conf + "/disable_ipv6", spec.ipv6 ? "0" : "1");
  auto link = sys::find_link(socket, spec.name);
  if (!link) throw Error(Errc::internal, fmt::format("bridge {} vanished while it was made", spec.name));
  return link->index;
}

}  // namespace

int ensure_bridge(sys::NetlinkSocket& socket, const BridgeSpec& spec, std::vector<std::string>& changes) {
  auto link = sys::find_link(socket, spec.name);
  if (link && link->kind != "bridge")
    throw Error(Errc::conflict, fmt::format("existing interface {} is not a bridge", spec.name));
  int index = link ? link->index : 0;
  const bool made = !link;
  if (made) {
    index = create_bridge(socket, spec);
    changes.push_back(fmt::format("made bridge {}", spec.name));
  }
  sys::NetlinkBatch batch;
  const auto present = addresses_of(socket, index);
  for (const Cidr& address : spec.addresses) {
    if (std::find(present.begin(), present.end(), address) != present.end()) continue;
    sys::add_address(batch, index, address.address.bytes(), address.length);
    if (!made) changes.push_back(fmt::format("gave bridge {} its address {}", spec.name, address.str()));
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

bool ensure_port(sys::NetlinkSocket& socket, const std::string& interface, int bridge, bool isolated, bool& changed) {
  auto link = sys::find_link(socket, interface);
  if (!link) return false;
  if (link->master == bridge && link->up) return true;
  changed = true;
  sys::NetlinkBatch batch;
  if (link->master != bridge) {
    sys::add_link_change(batch, {.index = link->index, .name = interface, .master = bridge});
    sys::add_bridge_port_flags(batch, link->index, {.hairpin = true, .isolated = isolated});
  }
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

std::optional<Cidr> find_interface_address(sys::NetlinkSocket& socket, const std::string& interface, Family family) {
  auto link = sys::find_link(socket, interface);
  if (!link) return std::nullopt;
  for (const Cidr& cidr : addresses_of(socket, link->index)) {
    if (cidr.address.family() == family && !cidr.address.is_link_local()) return cidr;
  }
  return std::nullopt;
}

bool enable_forwarding(Family family) {
  const char* path = family == Family::v4 ? "/proc/sys/net/ipv4/ip_forward" : "/proc/sys/net/ipv6/conf/all/forwarding";
  auto now = sys::try_read_small(path);
  if (!now || trim(*now) == "1") return false;
  sys::write_existing(path, "1");
  return true;
}

}  // namespace gantry::network
