#include <cerrno>
#include <cstring>

#include <unistd.h>

#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include "sys/netlink.hpp"

namespace gantry::sys {
namespace {

constexpr std::uint16_t kAck = NLM_F_ACK;
constexpr std::uint16_t kNew = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

// IN6_ADDR_GEN_MODE_NONE of linux/if_link.h, spelled here because that enum has no name to qualify it.
constexpr std::uint8_t kAddressGenerationNone = 1;

void set_flag(ifinfomsg& header, std::optional<bool> up) {
  if (!up) return;
  header.ifi_change = IFF_UP;
  header.ifi_flags = *up ? IFF_UP : 0;
}

}  // namespace

namespace {

constexpr std::uint16_t kUsuallyOn[] = {IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_MCAST_FLOOD,
                                        IFLA_BRPORT_BCAST_FLOOD};

std::optional<BridgePortFlags> parse_bridge_port(const NetlinkAttributes& attributes) {
  BridgePortFlags out;
  const auto flag = [&](std::uint16_t type) -> std::optional<bool> {
    const auto value = attributes.u8(type);
    return value ? std::optional<bool>(*value != 0) : std::nullopt;
  };
  out.hairpin = flag(IFLA_BRPORT_MODE);
  if (!out.hairpin) return std::nullopt;  // no port
  out.isolated = flag(IFLA_BRPORT_ISOLATED);
  if (const auto state = attributes.u8(IFLA_BRPORT_STATE)) out.enabled = *state != BR_STATE_DISABLED;
  out.usual = !flag(IFLA_BRPORT_LOCKED).value_or(false);
  for (const std::uint16_t type : kUsuallyOn) out.usual = *out.usual && flag(type).value_or(true);
  return out;
}

}  // namespace

LinkInfo parse_link(const NetlinkMessage& message) {
  LinkInfo out;
  auto header = message.header<ifinfomsg>();
  if (!header) return out;
  const auto attributes = message.attributes<ifinfomsg>();
  out.index = header->ifi_index;
  out.up = (header->ifi_flags & IFF_UP) != 0;
  out.running = (header->ifi_flags & IFF_RUNNING) != 0;
  out.name = attributes.text(IFLA_IFNAME);
  out.mac = std::string(attributes.bytes(IFLA_ADDRESS));
  out.mtu = attributes.u32(IFLA_MTU).value_or(0);
  out.master = static_cast<int>(attributes.u32(IFLA_MASTER).value_or(0));
  const NetlinkAttributes info = attributes.nested(IFLA_LINKINFO);
  out.kind = info.text(IFLA_INFO_KIND);
  // A bridge tells of changes in messages of its own, which have nothing else of the link.
  if (header->ifi_family == AF_BRIDGE) out.port = parse_bridge_port(attributes.nested(IFLA_PROTINFO));
  else if (info.text(IFLA_INFO_SLAVE_KIND) == "bridge") out.port = parse_bridge_port(info.nested(IFLA_INFO_SLAVE_DATA));
  return out;
}

std::optional<LinkInfo> find_link(NetlinkSocket& socket, const std::string& name) {
  NetlinkBatch request;
  request.begin_with(RTM_GETLINK, 0, ifinfomsg{}, "looking up interface " + name);
  request.text(IFLA_IFNAME, name);
  std::optional<LinkInfo> found;
  try {
    // A plain get answers with one message and no end marker; the socket is drained when it is read.
    socket.dump(request, [&](const NetlinkMessage& message) { found = parse_link(message); });
  } catch (const Error& e) {
    if (e.sys_errno() != ENODEV) throw;
  }
  return found;
}

bool wait_for_carrier(NetlinkSocket& socket, const std::string& name, int limit_ms) {
  for (int waited = 0;; ++waited) {
    auto link = find_link(socket, name);
    if (link && link->running) return true;
    if (!link || waited >= limit_ms) return false;
    ::usleep(1000);
  }
}

std::vector<LinkInfo> list_links(NetlinkSocket& socket) {
  NetlinkBatch request;
  request.begin_with(RTM_GETLINK, NLM_F_DUMP, ifinfomsg{}, "listing interfaces");
  std::vector<LinkInfo> out;
  socket.dump(
      request, [&](const NetlinkMessage& message) { out.push_back(parse_link(message)); }, [&] { out.clear(); });
  return out;
}

std::vector<AddressInfo> list_addresses(NetlinkSocket& socket) {
  NetlinkBatch request;
  request.begin_with(RTM_GETADDR, NLM_F_DUMP, ifaddrmsg{}, "listing addresses");
  std::vector<AddressInfo> out;
  socket.dump(
      request,
      [&](const NetlinkMessage& message) {
        auto header = message.header<ifaddrmsg>();
        if (!header) return;
        const auto attributes = message.attributes<ifaddrmsg>();
        AddressInfo info;
        info.link = static_cast<int>(header->ifa_index);
        info.family = header->ifa_family;
        info.prefix_length = header->ifa_prefixlen;
        info.link_scope = header->ifa_scope == RT_SCOPE_LINK;
        info.address = std::string(attributes.bytes(attributes.has(IFA_LOCAL) ? IFA_LOCAL : IFA_ADDRESS));
        out.push_back(std::move(info));
      },
      [&] { out.clear(); });
  return out;
}

std::vector<RouteInfo> list_routes(NetlinkSocket& socket) {
  NetlinkBatch request;
  request.begin_with(RTM_GETROUTE, NLM_F_DUMP, rtmsg{}, "listing routes");
  std::vector<RouteInfo> out;
  socket.dump(
      request,
      [&](const NetlinkMessage& message) {
        auto header = message.header<rtmsg>();
        if (!header || header->rtm_type != RTN_UNICAST) return;
        const auto attributes = message.attributes<rtmsg>();
        if (attributes.u32(RTA_TABLE).value_or(header->rtm_table) != RT_TABLE_MAIN) return;
        RouteInfo info;
        info.family = header->rtm_family;
        info.prefix_length = header->rtm_dst_len;
        info.destination = std::string(attributes.bytes(RTA_DST));
        info.gateway = std::string(attributes.bytes(RTA_GATEWAY));
        info.link = static_cast<int>(attributes.u32(RTA_OIF).value_or(0));
        out.push_back(std::move(info));
      },
      [&] { out.clear(); });
  return out;
}

void add_link_change(NetlinkBatch& batch, const LinkChange& change) {
  ifinfomsg header{};
  header.ifi_index = change.index;
  set_flag(header, change.up);
  batch.begin_with(RTM_NEWLINK, kAck, header,
                   "changing interface " + (change.name.empty() ? std::to_string(change.index) : change.name));
  if (change.index == 0) batch.text(IFLA_IFNAME, change.name);
  if (!change.new_name.empty()) batch.text(IFLA_IFNAME, change.new_name);
  if (!change.mac.empty()) batch.attr(IFLA_ADDRESS, change.mac);
  if (change.mtu != 0) batch.u32(IFLA_MTU, change.mtu);
  if (change.master) batch.u32(IFLA_MASTER, static_cast<std::uint32_t>(*change.master));
}

void add_bridge(NetlinkBatch& batch, const std::string& name, std::string_view mac, std::uint32_t mtu,
                bool multicast_snooping) {
  batch.begin_with(RTM_NEWLINK, kNew, ifinfomsg{}, "creating bridge " + name);
  batch.text(IFLA_IFNAME, name);
  // A bridge without an address of its own takes its lowest port's, and changes it as ports come and go.
  batch.attr(IFLA_ADDRESS, mac);
  if (mtu != 0) batch.u32(IFLA_MTU, mtu);
  const auto info = batch.nest(IFLA_LINKINFO);
  batch.text(IFLA_INFO_KIND, "bridge");
  const auto data = batch.nest(IFLA_INFO_DATA);
  batch.u8(IFLA_BR_MCAST_SNOOPING, multicast_snooping ? 1 : 0);
  batch.end(data);
  batch.end(info);
}

void add_veth(NetlinkBatch& batch, const VethSpec& spec) {
  batch.begin_with(RTM_NEWLINK, kNew, ifinfomsg{}, "creating interface " + spec.outer_name);
  batch.text(IFLA_IFNAME, spec.outer_name);
  if (spec.mtu != 0) batch.u32(IFLA_MTU, spec.mtu);
  if (spec.master != 0) batch.u32(IFLA_MASTER, static_cast<std::uint32_t>(spec.master));
  const auto info = batch.nest(IFLA_LINKINFO);
  batch.text(IFLA_INFO_KIND, "veth");
  const auto data = batch.nest(IFLA_INFO_DATA);
  const ifinfomsg peer_header{};
  const auto peer = batch.nest(VETH_INFO_PEER, {reinterpret_cast<const char*>(&peer_header), sizeof peer_header});
  batch.text(IFLA_IFNAME, spec.inner_name);
  if (!spec.inner_mac.empty()) batch.attr(IFLA_ADDRESS, spec.inner_mac);
  if (spec.mtu != 0) batch.u32(IFLA_MTU, spec.mtu);
  if (spec.netns_fd >= 0) batch.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(spec.netns_fd));
  batch.end(peer);
  batch.end(data);
  batch.end(info);
}

void add_sub_interface(NetlinkBatch& batch, const SubInterfaceSpec& spec) {
  batch.begin_with(RTM_NEWLINK, kNew, ifinfomsg{}, "creating " + spec.kind + " interface " + spec.name);
  batch.text(IFLA_IFNAME, spec.name);
  batch.u32(IFLA_LINK, static_cast<std::uint32_t>(spec.parent));
  if (spec.netns_fd >= 0) batch.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(spec.netns_fd));
  if (!spec.mac.empty()) batch.attr(IFLA_ADDRESS, spec.mac);
  if (spec.mtu != 0) batch.u32(IFLA_MTU, spec.mtu);
  const auto info = batch.nest(IFLA_LINKINFO);
  batch.text(IFLA_INFO_KIND, spec.kind);
  const auto data = batch.nest(IFLA_INFO_DATA);
  if (spec.kind == "macvlan") {
    batch.u32(IFLA_MACVLAN_MODE, spec.mode);
  } else if (spec.kind == "ipvlan") {
    batch.u16(IFLA_IPVLAN_MODE, static_cast<std::uint16_t>(spec.mode));
    batch.u16(IFLA_IPVLAN_FLAGS, spec.flag);
  } else {
    batch.u16(IFLA_VLAN_ID, static_cast<std::uint16_t>(spec.mode));
  }
  batch.end(data);
  batch.end(info);
}

void add_dummy(NetlinkBatch& batch, const std::string& name) {
  batch.begin_with(RTM_NEWLINK, kNew, ifinfomsg{}, "creating dummy interface " + name);
  batch.text(IFLA_IFNAME, name);
  const auto info = batch.nest(IFLA_LINKINFO);
  batch.text(IFLA_INFO_KIND, "dummy");
  batch.end(info);
}

bool knows_link_kind(NetlinkSocket& socket, const std::string& kind) {
  // A link that cannot be made: only an unknown kind is refused with this error (rtnl_newlink of the kernel). The
  // parent's index is none that any interface can have.
  NetlinkBatch batch;
  batch.begin_with(RTM_NEWLINK, kNew, ifinfomsg{}, "asking for " + kind + " interfaces");
  batch.text(IFLA_IFNAME, "probe");
  batch.u32(IFLA_LINK, 0x7fffffff);
  const auto info = batch.nest(IFLA_LINKINFO);
  batch.text(IFLA_INFO_KIND, kind);
  batch.end(info);
  const auto failures = socket.send(std::move(batch));
  return failures.empty() || failures.front().error != EOPNOTSUPP;
}

void add_no_ipv6_autoconf(NetlinkBatch& batch, const std::string& link) {
  batch.begin_with(RTM_NEWLINK, kAck, ifinfomsg{}, "switching IPv6 address generation off on " + link);
  batch.text(IFLA_IFNAME, link);
  const auto spec = batch.nest(IFLA_AF_SPEC);
  const auto inet6 = batch.nest(AF_INET6);
  batch.u8(IFLA_INET6_ADDR_GEN_MODE, kAddressGenerationNone);
  batch.end(inet6);
  batch.end(spec);
}

void add_remove_link(NetlinkBatch& batch, const std::string& name) {
  batch.begin_with(RTM_DELLINK, kAck, ifinfomsg{}, "removing interface " + name);
  batch.text(IFLA_IFNAME, name);
}

void add_bridge_port_flags(NetlinkBatch& batch, int link, const BridgePortFlags& flags) {
  ifinfomsg header{};
  header.ifi_family = AF_BRIDGE;
  header.ifi_index = link;
  batch.begin_with(RTM_SETLINK, kAck, header, "setting bridge port flags");
  const auto info = batch.nest(IFLA_PROTINFO);
  if (flags.hairpin) batch.u8(IFLA_BRPORT_MODE, *flags.hairpin ? 1 : 0);
  if (flags.isolated) batch.u8(IFLA_BRPORT_ISOLATED, *flags.isolated ? 1 : 0);
  if (flags.usual) {
    for (const std::uint16_t type : kUsuallyOn) batch.u8(type, *flags.usual ? 1 : 0);
    batch.u8(IFLA_BRPORT_LOCKED, *flags.usual ? 0 : 1);
  }
  if (flags.enabled) batch.u8(IFLA_BRPORT_STATE, *flags.enabled ? BR_STATE_FORWARDING : BR_STATE_DISABLED);
  batch.end(info);
}

namespace {

void address_message(NetlinkBatch& batch, std::uint16_t type, std::uint16_t flags, int link, std::string_view address,
                     unsigned prefix_length) {
  ifaddrmsg header{};
  header.ifa_family = address.size() == 16 ? AF_INET6 : AF_INET;
  header.ifa_prefixlen = static_cast<std::uint8_t>(prefix_length);
  header.ifa_index = static_cast<std::uint32_t>(link);
  batch.begin_with(type, flags, header, "setting an interface address");
  batch.attr(IFA_LOCAL, address);
  batch.attr(IFA_ADDRESS, address);
  if (type != RTM_NEWADDR) return;
  if (address.size() == 16) {
    batch.u32(IFA_FLAGS, IFA_F_NODAD);
  } else if (prefix_length < 31) {
    std::string broadcast(address);
    for (unsigned bit = prefix_length; bit < 32; ++bit)
      broadcast[bit / 8] = static_cast<char>(broadcast[bit / 8] | (0x80 >> (bit % 8)));
    batch.attr(IFA_BROADCAST, broadcast);
  }
}

}  // namespace

void add_address(NetlinkBatch& batch, int link, std::string_view address, unsigned prefix_length) {
  address_message(batch, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, link, address, prefix_length);
}

void add_remove_address(NetlinkBatch& batch, int link, std::string_view address, unsigned prefix_length) {
  address_message(batch, RTM_DELADDR, kAck, link, address, prefix_length);
}

void add_default_route(NetlinkBatch& batch, int link, int family, std::string_view gateway) {
  rtmsg header{};
  header.rtm_family = static_cast<unsigned char>(family);
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_protocol = RTPROT_BOOT;
  header.rtm_scope = gateway.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  header.rtm_type = RTN_UNICAST;
  batch.begin_with(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, header, "setting the default route");
  if (!gateway.empty()) batch.attr(RTA_GATEWAY, gateway);
  batch.u32(RTA_OIF, static_cast<std::uint32_t>(link));
}

void add_remove_default_route(NetlinkBatch& batch, int family) {
  rtmsg header{};
  header.rtm_family = static_cast<unsigned char>(family);
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_scope = RT_SCOPE_NOWHERE;
  batch.begin_with(RTM_DELROUTE, kAck, header, "removing the default route");
}

}  // namespace gantry::sys
