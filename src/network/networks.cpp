#include "network/networks.hpp"

#include <algorithm>

#include <linux/netlink.h>

#include "async/shield.hpp"
#include "base/text.hpp"
#include "network/messages.hpp"
#include "network/networks_state.hpp"

namespace gantry::network {
namespace {

constexpr const char* kBridgeOption = "com.docker.network.bridge.";

ForeignRules::Mode foreign_mode(const std::string& text) {
  if (text == "insert") return ForeignRules::Mode::insert;
  return text == "none" ? ForeignRules::Mode::none : ForeignRules::Mode::detect;
}

}  // namespace

Kernel::Kernel(Firewall::Settings settings, ForeignRules::Mode mode)
    : route(NETLINK_ROUTE), firewall(settings), foreign(mode, settings.table) {}

std::string Net::option(const std::string& key, std::string fallback) const {
  auto it = row.options.find(key);
  return it == row.options.end() ? fallback : it->second;
}

bool Net::flag(const std::string& key, bool fallback) const {
  const std::string text = to_lower(option(key));
  if (text.empty()) return fallback;
  return text == "true" || text == "1" || text == "t";
}

AddressRange* Net::range(Family family) {
  for (auto& one : ranges)
    if (one.subnet().address.family() == family) return &one;
  return nullptr;
}

const AddressRange* Net::range(Family family) const { return const_cast<Net*>(this)->range(family); }

AddressRange* Net::range_of(const IpAddress& address) {
  for (auto& one : ranges)
    if (!address.empty() && one.subnet().contains(address)) return &one;
  return nullptr;
}

const AddressRange* Net::range_of(const IpAddress& address) const { return const_cast<Net*>(this)->range_of(address); }

IpAddress Net::take(Family family, const std::string& wanted) {
  if (!wanted.empty()) {
    const IpAddress address = IpAddress::parse(wanted);
    AddressRange* const own = range_of(address);
    (own == nullptr ? *range(family) : *own).take(address);
    return address;
  }
  for (auto& one : ranges)
    if (one.subnet().address.family() == family)
      if (const auto address = one.try_take_any()) return *address;
  return range(family)->take_any(row.name, row.id);  // says that there is none
}

IpAddress Net::gateway(Family family) const {
  for (const auto& pool : row.pools) {
    auto ip = IpAddress::find(split_once(pool.gateway, '/').first);
    if (ip && ip->family() == family) return *ip;
  }
  return {};
}

IpAddress Net::route(const IpAddress& address) const {
  const char* configured = address.is_v6() ? kDefaultGateway6 : kDefaultGateway4;
  for (const auto& pool : row.pools) {
    const auto subnet = Cidr::find(pool.subnet);
    if (!subnet || address.empty() || !subnet->contains(address)) continue;
    if (auto it = pool.auxiliary.find(configured); it != pool.auxiliary.end())
      if (auto ip = IpAddress::find(it->second); ip && ip->family() == address.family()) return *ip;
    return IpAddress::find(split_once(pool.gateway, '/').first).value_or(IpAddress());
  }
  return {};
}

bool Net::isolated(Family family) const {
  return option(std::string(kBridgeOption) + (family == Family::v4 ? "gateway_mode_ipv4" : "gateway_mode_ipv6")) ==
         "isolated";
}

unsigned Net::announcements() const {
  if (isolates_containers()) return 0;
  return static_cast<unsigned>(parse_int(option("com.docker.network.advertise_addr_nmsgs")).value_or(3));
}

std::chrono::milliseconds Net::announce_every() const {
  return std::chrono::milliseconds(parse_int(option("com.docker.network.advertise_addr_ms")).value_or(1000));
}

Cidr Net::with_length(const IpAddress& address) const {
  const AddressRange* one = range_of(address);
  return one == nullptr ? Cidr{} : Cidr{address, one->subnet().length};
}

unsigned Net::mtu(unsigned fallback) const {
  auto value = parse_int(option("com.docker.network.driver.mtu"));
  return value && *value > 0 ? static_cast<unsigned>(*value) : fallback;
}

BridgeRules::Mode Net::mode(Family family) const {
  if (row.internal) return BridgeRules::Mode::internal;
  const std::string text =
      option(std::string(kBridgeOption) + (family == Family::v4 ? "gateway_mode_ipv4" : "gateway_mode_ipv6"));
  if (text == "routed") return BridgeRules::Mode::routed;
  if (text == "nat-unprotected") return BridgeRules::Mode::nat_unprotected;
  return BridgeRules::Mode::nat;
}

BridgeSpec Net::bridge_spec(unsigned default_mtu) const {
  BridgeSpec spec;
  spec.name = row.bridge;
  spec.mac = MacAddress::find(row.bridge_mac).value_or(MacAddress{});
  spec.owned = row.bridge_is_ours;
  spec.mtu = mtu(default_mtu);
  spec.ipv6 = row.enable_ipv6 && !isolated(Family::v6);
  spec.proxy_arp = is_default_bridge() && isolates_containers();
  for (Family family : {Family::v4, Family::v6}) {
    if (family == Family::v4 && flag(std::string(kBridgeOption) + "inhibit_ipv4", false)) continue;
    if (isolated(family)) continue;  // the host has no part in it
    if (Cidr address = with_length(gateway(family)); !address.empty()) spec.addresses.push_back(address);
  }
  return spec;
}

BridgeRules Net::rules(bool direct) const {
  BridgeRules out;
  out.bridge = row.bridge;
  out.icc = !isolates_containers();
  const bool masquerade = flag(std::string(kBridgeOption) + "enable_ip_masquerade", true);
  for (Family family : {Family::v4, Family::v6}) {
    const AddressRange* one = range(family);
    if (one == nullptr) continue;
    BridgeRules::Side side;
    side.subnet = one->subnet();
    side.mode = mode(family);
    side.masquerade = masquerade;
    side.direct = direct;
    if (auto ip = IpAddress::find(
            option(family == Family::v4 ? "com.docker.network.host_ipv4" : "com.docker.network.host_ipv6")))
      side.snat = *ip;
    (family == Family::v4 ? out.ip : out.ip6) = side;
  }
  for (auto& name : split(option(std::string(kBridgeOption) + "trusted_host_interfaces"), ':'))
    if (!name.empty()) out.trusted_interfaces.push_back(std::move(name));
  return out;
}

Networks::State::State(Options options_, db::Db& db_, async::Lanes& lanes_, boost::asio::any_io_executor loop_,
                       NetworkEventHook on_event_)
    : options(std::move(options_)),
      db(db_),
      lanes(lanes_),
      loop(std::move(loop_)),
      on_event(std::move(on_event_)),
      plan_of_subnets(options.address_pools.empty() ? default_address_pools() : options.address_pools),
      ports(PortAllocator::host_range()),
      name_files(options.names_directory),
      kernel(std::make_shared<Kernel>(Firewall::Settings{options.table_name, false, options.iptables, options.ip6tables,
                                                         options.accept_mark, options.accept_mask},
                                      foreign_mode(options.firewall_compat))) {}

Net* Networks::State::find_net(const std::string& name) {
  if (auto it = networks.find(name); it != networks.end() && !it->second.leaving) return &it->second;
  Net* by_prefix = nullptr;
  std::size_t matches = 0;
  for (auto& [id, net] : networks) {
    if (net.leaving) continue;
    if (net.row.name == name) return &net;
    if (!name.empty() && id.compare(0, name.size(), name) == 0) {
      by_prefix = &net;
      ++matches;
    }
  }
  if (matches > 1) throw network_ambiguous(name, matches, "ID prefix");
  return by_prefix;
}

Net& Networks::State::get_net(const std::string& name) {
  Net* net = find_net(name == "default" ? "bridge" : name);
  if (net == nullptr) throw network_not_found(name);
  return *net;
}

NetworkInfo Networks::State::describe(const Net& net) const {
  NetworkInfo out;
  const db::NetworkRow& row = net.row;
  out.id = row.id;
  out.name = row.name;
  out.created = Timestamp(std::chrono::nanoseconds(row.created_ns));
  out.driver = row.driver;
  out.enable_ipv4 = row.enable_ipv4;
  out.enable_ipv6 = row.enable_ipv6;
  out.internal = row.internal;
  out.attachable = row.attachable;
  out.predefined = row.predefined;
  out.ipam_driver = row.ipam_driver;
  out.ipam_options = row.ipam_options;
  for (const auto& pool : row.pools) out.ipam.push_back({pool.subnet, pool.ip_range, pool.gateway, pool.auxiliary});
  out.options = row.options;
  out.labels = row.labels;
  out.config_only = row.config_only;
  out.config_from = row.config_from;
  for (const auto& [id, member] : members) {
    for (const auto& endpoint : member.endpoints) {
      if (endpoint.network_id != row.id) continue;
      out.members.push_back({id, member.sandbox.container_name, endpoint.id, endpoint.mac,
                             net.with_length(IpAddress::find(endpoint.address).value_or(IpAddress())).str(),
                             net.with_length(IpAddress::find(endpoint.address6).value_or(IpAddress())).str()});
    }
  }
  return out;
}

void Networks::State::refresh(Member& member) {
  Attachment& shown = member.shown;
  shown.container_id = member.sandbox.container_id;
  shown.sandbox_id = member.sandbox.container_id;
  shown.donor_id = member.sandbox.donor;
  shown.names_path = member.serves_names ? name_files.container_file(shown.container_id).string() : std::string();
  shown.endpoints.clear();
  shown.ports.clear();
  shown.port_targets.clear();
  if (member.sandbox.kind == "host") {
    shown.kind = SandboxKind::host;
  } else {
    shown.kind = member.sandbox.kind == "joined" ? SandboxKind::joined : SandboxKind::own;
    const std::string& owner = shown.kind == SandboxKind::joined ? shown.donor_id : shown.container_id;
    shown.netns_path = (options.netns_directory / owner).string();
  }
  for (const auto& port : member.sandbox.exposed) shown.ports[port];
  for (const auto& row : member.endpoints) {
    Endpoint endpoint;
    endpoint.id = row.id;
    endpoint.network_id = row.network_id;
    endpoint.mac_address = row.mac;
    endpoint.ip_address = row.address;
    endpoint.ipv6_address = row.address6;
    endpoint.aliases = row.aliases;
    endpoint.dns_names = row.dns_names;
    endpoint.interface_name = row.interface;
    endpoint.host_interface = row.host_interface;
    endpoint.gw_priority = row.gw_priority;
    if (auto it = networks.find(row.network_id); it != networks.end()) {
      const Net& net = it->second;
      endpoint.network_name = net.row.name;
      const IpAddress v4 = IpAddress::find(row.address).value_or(IpAddress());
      const IpAddress v6 = IpAddress::find(row.address6).value_or(IpAddress());
      if (const auto* range = net.range_of(v4)) endpoint.ip_prefix_length = range->subnet().length;
      if (const auto* range = net.range_of(v6)) endpoint.ipv6_prefix_length = range->subnet().length;
      if (!net.closed()) {
        endpoint.gateway = net.route(v4).str();
        endpoint.ipv6_gateway = net.route(v6).str();
      }
    }
    if (row.ipv4_gateway && !row.host_interface.empty()) shown.port_targets.push_back(row.address);
    if (row.ipv6_gateway && !row.host_interface.empty()) shown.port_targets.push_back(row.address6);
    for (const auto& port : row.ports)
      shown.ports[fmt::format("{}/{}", port.container_port, port.proto)].push_back(
          {port.host_ip, std::to_string(port.host_port)});
    shown.endpoints.push_back(std::move(endpoint));
  }
  for (auto& [port, bindings] : shown.ports) std::sort(bindings.begin(), bindings.end());
}

void Networks::State::tell(const std::string& action, const Net& net, const std::string& container_id,
                           std::string detail) {
  if (!on_event) return;
  on_event({action, net.row.id, net.row.name, net.row.driver, container_id, std::move(detail)});
}

std::vector<Cidr> Networks::State::used_subnets() const {
  std::vector<Cidr> out;
  for (const auto& [id, net] : networks)
    for (const auto& range : net.ranges) out.push_back(range.subnet());
  return out;
}

Networks::Networks(Options options, db::Db& db, async::Lanes& lanes, boost::asio::any_io_executor loop,
                   NetworkEventHook on_event)
    : state_(std::make_unique<State>(std::move(options), db, lanes, std::move(loop), std::move(on_event))) {}

Networks::~Networks() = default;

Task<RecoverReport> Networks::recover(std::set<std::string> running) { return state_->recover(std::move(running)); }

Task<void> Networks::stop() {
  if (!state_->watchers) co_return;
  state_->watchers->cancel();
  co_await state_->watchers->join();
}

NetworkInfo Networks::get(const std::string& name) const { return state_->describe(state_->get_net(name)); }

std::optional<NetworkInfo> Networks::find(const std::string& name) const {
  const Net* net = state_->find_net(name);
  if (net == nullptr) return std::nullopt;
  return state_->describe(*net);
}

std::vector<NetworkInfo> Networks::list() const {
  std::vector<NetworkInfo> out;
  for (const auto& [id, net] : state_->networks)
    if (!net.leaving) out.push_back(state_->describe(net));
  std::sort(out.begin(), out.end(), [](const NetworkInfo& a, const NetworkInfo& b) { return a.name < b.name; });
  return out;
}

Task<Networks::Created> Networks::create_network(NetworkSpec spec) { return state_->create_network(std::move(spec)); }
Task<void> Networks::remove_network(std::string name) { return state_->remove_network(std::move(name)); }
Task<AttachResult> Networks::attach(AttachRequest request) { return state_->attach(std::move(request)); }
Task<void> Networks::detach(std::string container_id) { return state_->detach(std::move(container_id)); }

Task<Endpoint> Networks::connect(std::string network, AttachRequest container, EndpointSettings settings) {
  return state_->connect(std::move(network), std::move(container), std::move(settings));
}

Task<void> Networks::disconnect(std::string network, std::string container, bool force) {
  return state_->disconnect(std::move(network), std::move(container), force);
}

Task<void> Networks::rename(std::string container_id, std::string name) {
  return async::shielded(state_->rename(std::move(container_id), std::move(name)));
}

Task<void> Networks::relink(std::string container_id, sys::Path directory, std::vector<HostsLink> links) {
  return async::shielded(state_->relink(std::move(container_id), std::move(directory), std::move(links)));
}

const Attachment* Networks::find_attachment(const std::string& container_id) const {
  auto it = state_->members.find(container_id);
  return it == state_->members.end() ? nullptr : &it->second.shown;
}

std::vector<std::pair<std::string, std::string>> Networks::firewall_details() const {
  return {{"Driver", "nftables"}, {"Table", state_->options.table_name}};
}

std::vector<std::string> Networks::warnings() const {
  std::vector<std::string> out = state_->foreign_warnings;
  for (const auto& object : state_->paused_objects())
    out.push_back(
        fmt::format("WARNING: {} is changed by something else again and again; it is left alone for a while", object));
  return out;
}

std::uint64_t Networks::repairs() const { return state_->repairs; }

std::vector<AddressPool> Networks::address_pools() const { return state_->plan_of_subnets.pools(); }

Task<std::vector<std::string>> Networks::heal() { return state_->heal(); }

}  // namespace gantry::network
