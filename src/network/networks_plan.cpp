#include <algorithm>

#include <netinet/in.h>
#include <unistd.h>

#include "base/ids.hpp"
#include "base/text.hpp"
#include "network/messages.hpp"
#include "network/network_options.hpp"
#include "network/networks_state.hpp"

// What attach() and connect() decide before anything exists. All of it is memory only and happens between two
// co_awaits, so nobody else sees a half-made plan.
namespace gantry::network {
namespace {

IpAddress address_or_empty(const std::string& text) { return IpAddress::find(text).value_or(IpAddress()); }

std::uint8_t protocol_number(const std::string& proto) {
  if (proto == "udp") return IPPROTO_UDP;
  return proto == "sctp" ? IPPROTO_SCTP : IPPROTO_TCP;
}

std::vector<std::string> distinct(std::vector<std::string> names) {
  std::vector<std::string> out;
  for (auto& name : names)
    if (!name.empty() && std::find(out.begin(), out.end(), name) == out.end()) out.push_back(std::move(name));
  return out;
}

}  // namespace

Networks::State::Plan::Plan(Plan&& other) noexcept
    : state(std::exchange(other.state, nullptr)),
      sandbox(std::move(other.sandbox)),
      endpoints(std::move(other.endpoints)),
      settings(std::move(other.settings)),
      sockets(std::move(other.sockets)) {}

Networks::State::Plan::~Plan() {
  if (state == nullptr) return;
  for (const auto& row : endpoints) state->release(row);
}

void Networks::State::release(const db::EndpointRow& row) {
  for (const auto& port : row.ports)
    ports.release(port.proto, address_or_empty(port.host_ip), static_cast<std::uint16_t>(port.host_port));
  auto it = networks.find(row.network_id);
  if (it == networks.end()) return;
  for (const std::string* text : {&row.address, &row.address6}) {
    const IpAddress address = address_or_empty(*text);
    if (AddressRange* range = it->second.range_of(address)) range->release(address);
  }
}

db::EndpointRow Networks::State::plan_endpoint(Net& net, const AttachRequest& request, const EndpointSettings& settings,
                                               const std::string& interface) {
  if (net.row.config_only) throw config_only_network();
  if (!net.has_endpoints()) throw none_is_alone();
  db::EndpointRow row;
  row.id = random_id();
  row.network_id = net.row.id;
  row.container_id = request.container_id;
  row.mac = MacAddress::find(settings.mac_address).value_or(MacAddress::random()).str();
  if (net.is_bridge()) row.host_interface = "veth" + random_id().substr(0, 7);
  auto named = settings.driver_opts.find(kInterfaceOption);
  row.interface = named == settings.driver_opts.end() || named->second.empty() ? interface : named->second;
  row.gw_priority = settings.gw_priority;
  row.aliases = settings.aliases;
  if (!net.row.predefined) {
    std::vector<std::string> names{request.name};
    names.insert(names.end(), settings.aliases.begin(), settings.aliases.end());
    names.push_back(request.container_id.substr(0, 12));
    names.push_back(request.hostname);
    row.dns_names = distinct(std::move(names));
  }
  for (Family family : {Family::v4, Family::v6}) {
    if (net.range(family) == nullptr) continue;
    const std::string& wanted = family == Family::v4 ? settings.ipv4_address : settings.ipv6_address;
    IpAddress address;
    try {
      address = net.take(family, wanted);
    } catch (const Error&) {
      release(row);
      throw;
    }
    (family == Family::v4 ? row.address : row.address6) = address.str();
  }
  return row;
}

void Networks::State::choose_gateways(std::vector<db::EndpointRow>& rows) {
  std::vector<db::EndpointRow*> order;
  for (auto& row : rows) {
    row.ipv4_gateway = row.ipv6_gateway = false;
    order.push_back(&row);
  }
  auto has_gateway = [this](const db::EndpointRow& row, Family family) {
    const Net& net = networks.at(row.network_id);
    // On the host's own links a way out is assumed, as Docker does, also where no gateway is known.
    return !net.closed() && (net.is_vlan() || !net.gateway(family).empty()) &&
           !(family == Family::v4 ? row.address : row.address6).empty();
  };
  auto key = [&](const db::EndpointRow* row) {
    const int families = (has_gateway(*row, Family::v4) ? 1 : 0) + (has_gateway(*row, Family::v6) ? 1 : 0);
    return std::tuple(-row->gw_priority, -families, networks.at(row->network_id).row.name);
  };
  std::sort(order.begin(), order.end(), [&](const auto* a, const auto* b) { return key(a) < key(b); });
  for (Family family : {Family::v4, Family::v6}) {
    auto first = std::find_if(order.begin(), order.end(), [&](const auto* row) { return has_gateway(*row, family); });
    if (first != order.end()) (family == Family::v4 ? (*first)->ipv4_gateway : (*first)->ipv6_gateway) = true;
  }
}

Networks::State::Plan Networks::State::plan(const AttachRequest& request) {
  Plan out(this);
  out.sandbox.container_id = request.container_id;
  out.sandbox.container_name = request.name;
  out.sandbox.kind = "own";
  for (const auto& port : request.exposed_ports) out.sandbox.exposed.push_back(port);
  const std::string mode =
      request.network_mode.empty() || request.network_mode == "default" ? "bridge" : request.network_mode;
  Net* const main = request.without_own ? find_net(mode) : &get_net(mode);
  if (main != nullptr && main->row.config_only) throw config_only_network();
  if (main != nullptr && main->row.driver == "null") {
    for (const auto& [name, settings] : request.networks)
      if (find_net(name) != main) throw none_is_alone();
    return out;
  }
  struct Choice {
    Net* net;
    EndpointSettings settings;
  };
  std::vector<Choice> choices;
  if (!request.without_own) choices.push_back({main, {}});
  const auto own = static_cast<std::ptrdiff_t>(choices.size());  // it comes first
  for (const auto& [name, settings] : request.networks) {
    Net& net = get_net(name.empty() ? "bridge" : name);
    if (own == 1 && &net == main) choices.front().settings = settings;
    else choices.push_back({&net, settings});
  }
  std::sort(choices.begin() + own, choices.end(), [](const Choice& a, const Choice& b) {
    return std::tuple(-a.settings.gw_priority, a.net->row.name) < std::tuple(-b.settings.gw_priority, b.net->row.name);
  });
  std::set<std::string> names;  // those that somebody asked for
  for (const auto& choice : choices)
    if (auto it = choice.settings.driver_opts.find(kInterfaceOption); it != choice.settings.driver_opts.end())
      names.insert(it->second);
  for (auto& choice : choices) {
    const std::string prefix = choice.net->option("com.docker.network.container_iface_prefix", "eth");
    std::string interface;
    for (unsigned n = 0; interface.empty() || names.count(interface) != 0; ++n) interface = prefix + std::to_string(n);
    const auto named = choice.settings.driver_opts.find(kInterfaceOption);
    if (named == choice.settings.driver_opts.end() || named->second.empty()) names.insert(interface);
    out.endpoints.push_back(plan_endpoint(*choice.net, request, choice.settings, interface));
    out.settings.push_back(std::move(choice.settings));
  }
  choose_gateways(out.endpoints);
  for (auto& row : out.endpoints)
    if (networks.at(row.network_id).is_default_bridge())
      for (const auto& link : request.links) row.links.push_back({link.address, link.names, link.ports});
  plan_ports_of(out, request);
  return out;
}

void Networks::State::plan_ports_of(Plan& out, const AttachRequest& request) {
  db::EndpointRow* gateway4 = nullptr;
  db::EndpointRow* gateway6 = nullptr;
  for (auto& row : out.endpoints) {
    if (!networks.at(row.network_id).is_bridge()) continue;
    if (row.ipv4_gateway) gateway4 = &row;
    if (row.ipv6_gateway) gateway6 = &row;
  }
  // Internal networks publish nothing, and those on the host's own links are reached directly.
  if (gateway4 == nullptr && gateway6 == nullptr) return;
  const std::string bind_ip = networks.at((gateway4 ? gateway4 : gateway6)->network_id)
                                  .option("com.docker.network.bridge.host_binding_ipv4", options.default_bind_ip);
  const bool both = host_has_ipv6() && (options.relay || gateway6 != nullptr);
  const auto requests = plan_ports(request.port_bindings, request.exposed_ports, request.publish_all, bind_ip, both);
  for (const PortRequest& wanted : requests) {
    db::EndpointRow* first = gateway4 != nullptr ? gateway4 : gateway6;
    std::vector<PublishedPort> published;
    try {
      published = ports.allocate(wanted);
    } catch (Error& e) {
      e.prefix(external_connectivity(request.name, first->id));
      throw;
    }
    for (PublishedPort& port : published) {
      db::EndpointRow* row = port.host_ip.is_v6() && gateway6 != nullptr ? gateway6 : first;
      row->ports.push_back({row->id, port.proto, port.host_ip.str(), port.host_port, port.container_port});
      if (!port.socket) continue;
      PublishedSocket socket;
      socket.proto = port.proto;
      socket.host_ip = port.host_ip.str();
      socket.host_port = port.host_port;
      // A server of one family is more likely to be of IPv4, so that comes first wherever the kernel leaves the choice.
      const bool by_v6 = row->address.empty() || (port.host_ip.is_v6() && row == gateway6);
      socket.container_ip = by_v6 ? row->address6 : row->address;
      socket.container_port = port.container_port;
      // Without it the kernel serves everything but 127.0.0.0/8.
      socket.relay = port.proto != "sctp" && (options.relay || (!port.host_ip.is_v6() && !row->address.empty()));
      socket.socket = std::move(port.socket);
      out.sockets.push_back(std::move(socket));
    }
  }
}

std::vector<PublishRule> Networks::State::publish_rules(const db::EndpointRow& row) {
  std::vector<PublishRule> out;
  const Net& net = networks.at(row.network_id);
  if (!net.is_bridge()) return out;
  for (const auto& port : row.ports) {
    PublishRule rule;
    rule.proto = protocol_number(port.proto);
    rule.host_ip = address_or_empty(port.host_ip);
    rule.host_port = static_cast<std::uint16_t>(port.host_port);
    rule.container_ip = address_or_empty(rule.host_ip.is_v6() ? row.address6 : row.address);
    // The other family's host addresses are the relay's.
    if (rule.container_ip.empty() || rule.container_ip.family() != rule.host_ip.family()) continue;
    rule.container_port = static_cast<std::uint16_t>(port.container_port);
    rule.translate = net.mode(rule.container_ip.family()) != BridgeRules::Mode::routed;
    if (net.isolates_containers() && options.relay) rule.relayed_for = net.row.bridge;
    out.push_back(rule);
  }
  for (const auto& link : row.links) {
    for (const auto& text : link.ports) {
      const PortSpec port = PortSpec::parse(text);
      PublishRule rule;
      rule.proto = protocol_number(port.proto);
      rule.container_ip = address_or_empty(link.address);
      rule.container_port = port.port;
      rule.client = address_or_empty(row.address);
      if (!rule.client.empty() && rule.client.family() == rule.container_ip.family()) out.push_back(rule);
    }
  }
  return out;
}

DefaultRoute Networks::State::default_route(const db::EndpointRow& row, Family family) const {
  const Net& net = networks.at(row.network_id);
  // An ipvlan of mode l3 has no neighbours, only a link.
  const bool by_link = net.row.driver == "ipvlan" && parse_vlan_options(net.row.driver, net.row.options).mode != "l2";
  const IpAddress own = address_or_empty(family == Family::v4 ? row.address : row.address6);
  const IpAddress gateway = by_link ? IpAddress() : net.route(own);
  if (!by_link && gateway.empty()) return {};
  return {row.interface, gateway};
}

InterfaceSpec Networks::State::interface_spec(const db::EndpointRow& row, const EndpointSettings& settings) {
  const Net& net = networks.at(row.network_id);
  InterfaceSpec spec;
  spec.outer_name = row.host_interface;
  spec.inner_name = row.interface;
  spec.bridge = net.row.bridge;
  spec.mac = MacAddress::find(row.mac).value_or(MacAddress{});
  spec.address = net.with_length(address_or_empty(row.address));
  spec.address6 = net.with_length(address_or_empty(row.address6));
  for (const auto& text : settings.link_local_ips) {
    const IpAddress ip = IpAddress::parse(text, "link-local IP address");
    spec.link_local.push_back({ip, ip.is_v6() ? 64u : 16u});
  }
  spec.vlan_kind = net.is_vlan() ? net.row.driver : "";
  if (net.is_vlan()) {
    spec.vlan = parse_vlan_options(net.row.driver, net.row.options);
    spec.vlan.parent = net.row.parent;
  }
  if (row.ipv4_gateway) spec.route4 = default_route(row, Family::v4);
  if (row.ipv6_gateway) spec.route6 = default_route(row, Family::v6);
  spec.mtu = net.mtu(options.mtu);
  spec.isolated = net.isolates_containers();
  spec.announced = net.announcements() > 0;
  if (auto it = settings.driver_opts.find(kSysctlsOption); it != settings.driver_opts.end())
    spec.sysctls = endpoint_sysctls(it->second, row.interface);
  return spec;
}

std::vector<std::string> Networks::State::host_gateways() const {
  if (!options.host_gateway_ips.empty()) return options.host_gateway_ips;
  std::vector<std::string> out;
  for (const auto& [id, net] : networks) {
    if (!net.is_default_bridge()) continue;
    for (Family family : {Family::v4, Family::v6})
      if (IpAddress gateway = net.gateway(family); !gateway.empty()) out.push_back(gateway.str());
  }
  return out;
}

std::vector<HostsLine> Networks::State::hosts_lines(const AttachRequest& request,
                                                    const std::vector<db::EndpointRow>& rows) const {
  auto lines = parse_extra_hosts(request.extra_hosts, host_gateways());
  for (const auto& link : request.links) lines.push_back({link.address, link.names});
  const auto names = own_names(request.hostname, request.domainname);
  for (const auto& row : rows)
    for (const std::string* address : {&row.address, &row.address6})
      if (!address->empty()) lines.push_back({*address, names});
  return lines;
}

ResolvSettings Networks::State::resolv_settings(const AttachRequest& request,
                                                const std::vector<db::EndpointRow>& rows) const {
  ResolvSettings out;
  auto choose = [](const std::vector<std::string>& own, const std::vector<std::string>& common) {
    return own.empty() ? common : own;
  };
  out.host_path = options.host_resolv_conf.string();
  out.servers = choose(request.dns, options.dns);
  out.search = choose(request.dns_search, options.dns_search);
  out.options = choose(request.dns_options, options.dns_options);
  out.drop_loopback = request.network_mode != "host";
  for (const auto& row : rows) {
    out.ipv6 = out.ipv6 || !row.address6.empty();
    out.internal = out.internal || has_names(row);
  }
  return out;
}

Files Networks::State::files_for(const AttachRequest& request, const std::vector<db::EndpointRow>& rows) const {
  const bool host = request.network_mode == "host";
  Files files;
  files.directory = request.container_directory;
  files.hostname = request.hostname;
  files.host_hosts = options.host_hosts;
  const bool ipv6_loopback = ::access("/proc/sys/net/ipv6/conf/lo", F_OK) == 0;
  if (!host || !request.extra_hosts.empty()) files.hosts = render_hosts(hosts_lines(request, rows), ipv6_loopback);
  files.resolv = resolv_settings(request, rows);
  files.copy_resolv =
      host && files.resolv.servers.empty() && files.resolv.search.empty() && files.resolv.options.empty();
  return files;
}

}  // namespace gantry::network
