#include <algorithm>

#include <unistd.h>

#include "base/ids.hpp"
#include "base/text.hpp"
#include "network/conntrack.hpp"
#include "network/messages.hpp"
#include "network/networks_state.hpp"
#include "sys/namespace.hpp"

namespace gantry::network {
namespace {

// On tmpfs, so that it is gone when the host's setting is: it says that forwarding is on because of us.
sys::Path forwarding_mark(const Options& options) { return options.run_directory / "forwarding-enabled"; }

bool switch_forwarding_on(const Options& options, bool ipv6) {
  if (!options.ip_forward) return false;
  const sys::Path mark = forwarding_mark(options);
  const bool changed4 = enable_forwarding(Family::v4);
  const bool changed6 = ipv6 && enable_forwarding(Family::v6);
  if (changed4 || changed6) {
    sys::make_directories(mark.parent_path(), 0711);
    sys::write_atomically(mark, "", 0644, false);
  }
  return sys::find_file(mark).has_value() && !options.ip_forward_no_drop;
}

}  // namespace

void Networks::State::enter_network(const db::NetworkRow& row) {
  Net net;
  net.row = row;
  for (const auto& pool : row.pools) {
    auto subnet = Cidr::find(pool.subnet);
    if (!subnet) continue;
    AddressRange range(*subnet, Cidr::find(pool.ip_range).value_or(Cidr{}));
    auto reserve = [&](const std::string& text) {
      auto ip = IpAddress::find(split_once(text, '/').first);
      if (ip && range.subnet().contains(*ip)) range.reserve(*ip);
    };
    reserve(pool.gateway);
    for (const auto& [name, address] : pool.auxiliary) reserve(address);
    net.ranges.push_back(std::move(range));
  }
  if (row.config_only) net.ranges.clear();
  networks[row.id] = std::move(net);
}

/// What the options say; else what there was before; else what the interface has; else any free subnet.
db::NetworkPoolRow Networks::State::default_bridge_pool(Family family, const db::NetworkRow& before,
                                                        const std::vector<Cidr>& occupied,
                                                        const std::vector<Cidr>& on_bridge) const {
  const bool v4 = family == Family::v4;
  const std::string& bip = v4 ? options.bip : options.bip6;
  const std::string& fixed_text = v4 ? options.fixed_cidr : options.fixed_cidr_v6;
  const std::string& route = v4 ? options.default_gateway : options.default_gateway_v6;
  const Cidr fixed = fixed_text.empty() ? Cidr{} : Cidr::parse(fixed_text, v4 ? "fixed-cidr" : "fixed-cidr-v6");
  auto suits = [&](const Cidr& subnet) { return fixed.empty() || subnet.contains(fixed); };
  Cidr address;  // the bridge's own, in its subnet
  if (!bip.empty()) address = Cidr::parse(bip, v4 ? "bip" : "bip6");
  for (const auto& pool : before.pools) {
    const auto subnet = Cidr::find(pool.subnet);
    if (address.empty() && subnet && subnet->address.family() == family && suits(*subnet))
      address = {IpAddress::parse(pool.gateway), subnet->length};
  }
  for (const Cidr& there : on_bridge)
    if (address.empty() && there.address.family() == family && suits(there)) address = there;
  if (address.empty()) {
    const Cidr subnet = fixed.empty() ? free_subnet(family, used_subnets(), occupied, 0) : fixed.masked();
    address = {IpAddress::from_number(family, subnet.first().number() + 1), subnet.length};
  }
  db::NetworkPoolRow pool{address.masked().str(), fixed.empty() ? "" : fixed.masked().str(), address.address.str(), {}};
  if (!route.empty()) {
    const IpAddress gateway = IpAddress::parse(route, v4 ? "default-gateway" : "default-gateway-v6");
    if (!address.contains(gateway))
      throw Error(Errc::invalid_argument,
                  fmt::format("default gateway ip must be part of the network: {} is not in {}", route, pool.subnet));
    pool.auxiliary[v4 ? kDefaultGateway4 : kDefaultGateway6] = route;
  }
  return pool;
}

Task<void> Networks::State::make_predefined(HostFacts facts) {
  std::map<std::string, db::NetworkRow> existing;
  for (const auto& [id, net] : networks)
    if (net.row.predefined) existing[net.row.name] = net.row;
  const bool has_bridge = options.bridge_name != "none";
  for (const auto& [name, driver] : {std::pair("bridge", "bridge"), {"host", "host"}, {"none", "null"}}) {
    const bool is_bridge = std::string_view(name) == "bridge";
    const auto it = existing.find(name);
    if (is_bridge && !has_bridge) {
      if (it == existing.end()) continue;
      co_await lanes.db.run([this, id = it->second.id] { db::remove_network(db, id); });
      networks.erase(it->second.id);
      continue;
    }
    db::NetworkRow row = it == existing.end() ? db::NetworkRow() : it->second;
    const bool is_new = row.id.empty();
    if (is_new) {
      row.id = random_id();
      row.created_ns = now().time_since_epoch().count();
    }
    row.name = name;
    row.driver = driver;
    row.predefined = true;
    if (is_bridge) {
      row.bridge = options.bridge_name;
      // An interface that is there keeps its address: neighbours know it.
      if (facts.bridge_mac.size() == 6) row.bridge_mac = MacAddress::from_raw(facts.bridge_mac).str();
      else if (row.bridge_mac.empty()) row.bridge_mac = MacAddress::random().str();
      auto text = [](bool flag) { return flag ? "true" : "false"; };
      row.options = {{"com.docker.network.bridge.default_bridge", "true"},
                     {"com.docker.network.bridge.enable_icc", text(options.icc)},
                     {"com.docker.network.bridge.enable_ip_masquerade", text(options.ip_masq)},
                     {"com.docker.network.bridge.host_binding_ipv4",
                      options.default_bind_ip.empty() ? "0.0.0.0" : options.default_bind_ip},
                     {"com.docker.network.bridge.name", options.bridge_name},
                     {"com.docker.network.driver.mtu", std::to_string(options.mtu)}};
      row.enable_ipv6 = options.ipv6;
      const db::NetworkRow before = row;
      networks.erase(row.id);  // its own subnet is no obstacle to it
      row.pools = {default_bridge_pool(Family::v4, before, facts.occupied, facts.on_bridge)};
      if (options.ipv6) row.pools.push_back(default_bridge_pool(Family::v6, before, facts.occupied, facts.on_bridge));
      for (const auto& pool : before.pools) {
        const auto old = Cidr::find(pool.subnet);
        const bool kept = std::any_of(row.pools.begin(), row.pools.end(), [&](const auto& now) {
          return now.gateway == pool.gateway && now.subnet == pool.subnet;
        });
        if (old && !kept) former_addresses.push_back({IpAddress::parse(pool.gateway), old->length});
      }
    }
    co_await lanes.db.run([this, row, is_new] {
      if (is_new) db::insert_network(db, row);
      else db::update_network(db, row);
    });
    enter_network(row);
  }
}

namespace {

// Namespaces and interfaces without a row. Only ports of our own bridges are looked at: others' links are theirs.
void sweep_orphans(Kernel& kernel, const sys::Path& directory, const std::set<std::string>& containers,
                   const std::set<std::string>& interfaces, const std::set<std::string>& bridges, RepairReport& out) {
  sys::make_directories(directory, 0711);
  for (const auto& name : sys::list_directory(directory)) {
    if (containers.count(name) != 0) continue;
    sys::remove_netns(directory / name);
    out.repaired.push_back({"namespace " + name, "removed namespace " + name});
  }
  std::set<int> ours;
  const auto links = sys::list_links(kernel.route);
  for (const auto& link : links)
    if (bridges.count(link.name) != 0) ours.insert(link.index);
  for (const auto& link : links) {
    if (link.kind != "veth" || ours.count(link.master) == 0 || interfaces.count(link.name) != 0 ||
        link.name.compare(0, 4, "veth") != 0)
      continue;
    remove_interface(kernel.route, link.name);
    out.repaired.push_back({"interface " + link.name, "removed interface " + link.name});
  }
}

}  // namespace

Task<RecoverReport> Networks::State::recover(std::set<std::string> running) {
  RecoverReport report;
  networks.clear();
  members.clear();
  ports = PortAllocator(PortAllocator::host_range());

  auto [network_rows, sandbox_rows, endpoint_rows] = co_await lanes.db.run(
      [this] { return std::tuple(db::load_networks(db), db::load_sandboxes(db), db::load_endpoints(db)); });
  std::vector<std::string> bridges{options.bridge_name};
  for (const auto& row : network_rows) {
    enter_network(row);
    if (!row.bridge.empty()) bridges.push_back(row.bridge);
  }
  KernelPtr to = kernel;
  HostFacts facts = co_await lanes.net.run([to, bridges, this] {
    HostFacts out;
    const std::string resolv_conf = sys::find_file(options.host_resolv_conf, 1 << 20).value_or("");
    out.occupied = occupied_subnets(to->route, resolv_conf, bridges);
    out.on_bridge = interface_addresses(to->route, options.bridge_name);
    if (auto link = sys::find_link(to->route, options.bridge_name)) out.bridge_mac = link->mac;
    return out;
  });
  co_await make_predefined(std::move(facts));

  std::map<std::string, std::vector<db::EndpointRow>> gone;  // containers that ended while we were away
  for (auto& row : sandbox_rows) {
    if (running.count(row.container_id) == 0) gone[row.container_id];
    else members[row.container_id].sandbox = row;
  }
  for (auto& row : endpoint_rows) {
    if (auto it = gone.find(row.container_id); it != gone.end()) {
      it->second.push_back(row);
      continue;
    }
    auto net = networks.find(row.network_id);
    auto member = members.find(row.container_id);
    if (net == networks.end() || member == members.end()) continue;
    for (const std::string* text : {&row.address, &row.address6}) {
      auto ip = IpAddress::find(*text);
      if (AddressRange* range = ip ? net->second.range_of(*ip) : nullptr) range->reserve(*ip);
    }
    for (const auto& port : row.ports)
      ports.adopt(port.proto, IpAddress::find(port.host_ip).value_or(IpAddress()),
                  static_cast<std::uint16_t>(port.host_port));
    member->second.endpoints.push_back(row);
  }
  // Interfaces were numbered in the order in which they came.
  for (auto& [id, member] : members) {
    std::sort(member.endpoints.begin(), member.endpoints.end(),
              [](const auto& a, const auto& b) { return a.interface < b.interface; });
    refresh(member);
  }

  struct Job {
    RepairJob links;
    std::vector<BridgeRules> rules;
    std::vector<std::pair<std::string, std::vector<PublishRule>>> published;
    std::set<std::string> sandboxes, interfaces, bridge_names;
    std::vector<IpAddress> freed;
    std::vector<Cidr> former;
  } job;
  job.links = wanted();
  job.former = std::exchange(former_addresses, {});
  for (const auto& port : job.links.ports) job.interfaces.insert(port.interface);
  for (const auto& [id, net] : networks) {
    if (!net.is_bridge()) continue;
    job.rules.push_back(rules_of(net));
    job.bridge_names.insert(net.row.bridge);
  }
  for (const auto& [id, member] : members) {
    if (member.sandbox.kind == "own") job.sandboxes.insert(id);
    for (const auto& row : member.endpoints) job.published.emplace_back(row.id, publish_rules(row));
  }
  for (const auto& [id, rows] : gone)
    for (const auto& row : rows)
      for (const std::string* text : {&row.address, &row.address6})
        if (auto ip = IpAddress::find(*text)) job.freed.push_back(*ip);

  RepairReport found = co_await lanes.net.run([job, to, this] {
    RepairReport out;
    to->lane_thread = ::gettid();
    to->firewall.clear_plans();
    to->firewall.set_drop_foreign_forward(switch_forwarding_on(options, job.links.forward6));
    for (const auto& rules : job.rules) to->firewall.plan_bridge(rules);
    for (const auto& [endpoint, rules] : job.published) to->firewall.plan_publish(endpoint, rules);
    remove_addresses(to->route, options.bridge_name, job.former);
    repair_links(to->route, job.links, out);
    to->firewall.rebuild();
    sweep_orphans(*to, options.netns_directory, job.sandboxes, job.interfaces, job.bridge_names, out);
    for (const auto& name : job.sandboxes)
      if (!sys::is_netns(options.netns_directory / name))
        out.problems.push_back({"namespace " + name, "namespace of " + name + " is not mounted"});
    if (!job.freed.empty()) forget_flows(job.freed);
    return out;
  });
  for (const auto& [id, rows] : gone) {
    co_await lanes.db.run([this, container = id] { db::remove_sandbox(db, container); });
    report.removed.push_back("network of ended container " + id);
  }
  if (options.embedded_dns) co_await recover_names();
  for (auto& line : co_await look_at_foreign_rules()) report.repaired.push_back(std::move(line));
  for (auto& repair : found.repaired) report.repaired.push_back(std::move(repair.text));
  for (auto& problem : found.problems) report.problems.push_back(std::move(problem.text));
  if (!watchers) {
    watchers = std::make_unique<async::TaskGroup>(loop);
    watchers->spawn("network.watch_links", watch_links());
    watchers->spawn("network.watch_firewall", watch_firewall());
    watchers->spawn("network.audit", audit());
  }
  co_return report;
}

}  // namespace gantry::network
