#include <algorithm>
#include <chrono>

#include <unistd.h>

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/readable.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "network/conntrack.hpp"
#include "network/messages.hpp"
#include "network/networks_state.hpp"
#include "sys/namespace.hpp"

namespace gantry::network {
namespace {

constexpr auto kSettle = std::chrono::milliseconds(50);  // changes come in groups; one look serves all of them
constexpr auto kAuditEvery = std::chrono::seconds(60);

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

struct HostFacts {
  std::vector<Cidr> occupied;
  std::optional<Cidr> on_bridge;
};

HostFacts look_at_host(Kernel& kernel, const Options& options, const std::vector<std::string>& bridges) {
  HostFacts out;
  const std::string resolv_conf = sys::find_file(options.host_resolv_conf, 1 << 20).value_or("");
  out.occupied = occupied_subnets(kernel.route, resolv_conf, bridges);
  out.on_bridge = find_interface_address(kernel.route, options.bridge_name, Family::v4);
  return out;
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
  networks[row.id] = std::move(net);
}

Task<void> Networks::State::make_predefined(std::vector<Cidr> occupied, std::optional<Cidr> on_bridge) {
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
      if (row.bridge_mac.empty()) row.bridge_mac = MacAddress::random().str();
      auto text = [](bool flag) { return flag ? "true" : "false"; };
      row.options = {{"com.docker.network.bridge.default_bridge", "true"},
                     {"com.docker.network.bridge.enable_icc", text(options.icc)},
                     {"com.docker.network.bridge.enable_ip_masquerade", text(options.ip_masq)},
                     {"com.docker.network.bridge.host_binding_ipv4",
                      options.default_bind_ip.empty() ? "0.0.0.0" : options.default_bind_ip},
                     {"com.docker.network.bridge.name", options.bridge_name},
                     {"com.docker.network.driver.mtu", std::to_string(options.mtu)}};
      Cidr address;  // the bridge's own, in its subnet
      if (!options.bip.empty()) address = Cidr::parse(options.bip, "bip");
      else if (!row.pools.empty())
        address = {IpAddress::parse(row.pools[0].gateway), Cidr::parse(row.pools[0].subnet).length};
      else if (on_bridge) address = *on_bridge;
      if (address.empty()) {
        auto subnet = plan_of_subnets.find(Family::v4, used_subnets(), occupied);
        if (!subnet) throw pools_exhausted("");
        address = {IpAddress::from_number(Family::v4, subnet->first().number() + 1), subnet->length};
      }
      row.pools = {{address.masked().str(), options.fixed_cidr, address.address.str(), {}}};
    }
    co_await lanes.db.run([this, row, is_new] {
      if (is_new) db::insert_network(db, row);
      else db::update_network(db, row);
    });
    enter_network(row);
  }
}

Networks::State::Wanted Networks::State::wanted() const {
  Wanted out;
  for (const auto& [id, net] : networks)
    if (net.is_bridge() && !net.leaving) out.bridges.push_back(net.bridge_spec(options.mtu));
  for (const auto& [id, member] : members) {
    for (const auto& row : member.endpoints) {
      auto net = networks.find(row.network_id);
      if (net == networks.end()) continue;
      out.ports.push_back({row.host_interface, net->second.row.bridge,
                           !net->second.flag("com.docker.network.bridge.enable_icc", true)});
    }
  }
  return out;
}

namespace {

struct Sweep {
  std::vector<std::string> lines;
  std::vector<std::string> problems;
};

void ensure_links(Kernel& kernel, const std::vector<BridgeSpec>& bridges,
                  const std::vector<std::tuple<std::string, std::string, bool>>& ports, Sweep& out) {
  std::map<std::string, int> indices;
  for (const auto& spec : bridges) {
    try {
      indices[spec.name] = ensure_bridge(kernel.route, spec, out.lines);
    } catch (const Error& e) {
      out.problems.push_back(fmt::format("bridge {}: {}", spec.name, e.message()));
    }
  }
  for (const auto& [interface, bridge, isolated] : ports) {
    auto index = indices.find(bridge);
    if (index == indices.end()) continue;
    bool changed = false;
    try {
      if (!ensure_port(kernel.route, interface, index->second, isolated, changed))
        out.problems.push_back(fmt::format("interface {} of bridge {} is gone", interface, bridge));
    } catch (const Error& e) {
      out.problems.push_back(fmt::format("interface {}: {}", interface, e.message()));
    }
    if (!changed) continue;
    sys::wait_for_carrier(kernel.route, interface, 20);
    sys::wait_for_carrier(kernel.route, bridge, 20);
    out.lines.push_back(fmt::format("connected {} to bridge {} again", interface, bridge));
  }
}

// Namespaces and interfaces without a row. Only ports of our own bridges are looked at: others' links are theirs.
void sweep_orphans(Kernel& kernel, const sys::Path& directory, const std::set<std::string>& containers,
                   const std::set<std::string>& interfaces, const std::set<std::string>& bridges, Sweep& out) {
  sys::make_directories(directory, 0711);
  for (const auto& name : sys::list_directory(directory)) {
    if (containers.count(name) != 0) continue;
    sys::remove_netns(directory / name);
    out.lines.push_back("removed namespace " + name);
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
    out.lines.push_back("removed interface " + link.name);
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
  HostFacts facts = co_await lanes.net.run([to, bridges, this] { return look_at_host(*to, options, bridges); });
  co_await make_predefined(facts.occupied, facts.on_bridge);

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
      AddressRange* range = ip ? net->second.range(ip->family()) : nullptr;
      if (range != nullptr && range->subnet().contains(*ip)) range->reserve(*ip);
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
    std::vector<BridgeRules> rules;
    std::vector<std::pair<std::string, std::vector<PublishRule>>> published;
    std::vector<BridgeSpec> bridges;
    std::vector<std::tuple<std::string, std::string, bool>> ports;
    std::set<std::string> sandboxes, interfaces, bridge_names;
    std::vector<IpAddress> freed;
    bool ipv6 = false;
  } job;
  const Wanted want = wanted();
  job.bridges = want.bridges;
  for (const auto& port : want.ports) {
    job.ports.emplace_back(port.interface, port.bridge, port.isolated);
    job.interfaces.insert(port.interface);
  }
  for (const auto& [id, net] : networks) {
    if (!net.is_bridge()) continue;
    job.rules.push_back(net.rules());
    job.bridge_names.insert(net.row.bridge);
    job.ipv6 = job.ipv6 || net.row.enable_ipv6;
  }
  for (const auto& [id, member] : members) {
    if (member.sandbox.kind == "own") job.sandboxes.insert(id);
    for (const auto& row : member.endpoints) job.published.emplace_back(row.id, publish_rules(row));
  }
  for (const auto& [id, rows] : gone)
    for (const auto& row : rows)
      for (const std::string* text : {&row.address, &row.address6})
        if (auto ip = IpAddress::find(*text)) job.freed.push_back(*ip);

  Sweep sweep = co_await lanes.net.run([job, to, this] {
    Sweep out;
    to->lane_thread = ::gettid();
    to->firewall.clear_plans();
    to->firewall.set_drop_foreign_forward(switch_forwarding_on(options, job.ipv6));
    for (const auto& rules : job.rules) to->firewall.plan_bridge(rules);
    for (const auto& [endpoint, rules] : job.published) to->firewall.plan_publish(endpoint, rules);
    ensure_links(*to, job.bridges, job.ports, out);
    to->firewall.rebuild();
    sweep_orphans(*to, options.netns_directory, job.sandboxes, job.interfaces, job.bridge_names, out);
    for (const auto& name : job.sandboxes)
      if (!sys::is_netns(options.netns_directory / name))
        out.problems.push_back("namespace of " + name + " is not mounted");
    if (!job.freed.empty()) forget_flows(job.freed);
    return out;
  });
  for (const auto& [id, rows] : gone) {
    co_await lanes.db.run([this, container = id] { db::remove_sandbox(db, container); });
    report.removed.push_back("network of ended container " + id);
  }
  if (options.embedded_dns) co_await recover_names();
  report.repaired = std::move(sweep.lines);
  for (auto& problem : sweep.problems) report.problems.push_back(std::move(problem));
  if (!watchers) {
    watchers = std::make_unique<async::TaskGroup>(loop);
    watchers->spawn("network.watch_links", watch_links());
    watchers->spawn("network.watch_firewall", watch_firewall());
    watchers->spawn("network.audit", audit());
  }
  co_return report;
}

Task<std::vector<std::string>> Networks::State::heal() {
  auto lock = co_await healing.lock("network.heal");
  const Wanted want = wanted();
  std::vector<std::tuple<std::string, std::string, bool>> links;
  for (const auto& port : want.ports) links.emplace_back(port.interface, port.bridge, port.isolated);
  KernelPtr to = kernel;
  Sweep found = co_await lanes.net.run([to, bridges = want.bridges, links] {
    Sweep out;
    ensure_links(*to, bridges, links, out);
    if (auto wrong = to->firewall.repair(); !wrong.empty()) out.lines.push_back("firewall: " + wrong);
    return out;
  });
  co_return found.lines;
}

Task<void> Networks::State::heal_and_tell() {
  boost::asio::steady_timer timer(loop, kSettle);
  co_await timer.async_wait(boost::asio::use_awaitable);
  std::vector<std::string> repaired;
  try {
    repaired = co_await heal();
  } catch (const Error& e) {
    log::warning("network: repair failed: {}", e.log_detail());
    co_return;
  }
  for (const auto& line : repaired) {
    log::warning("network: repaired after a foreign change: {}", line);
    if (on_event) on_event({"heal", "", "", "", "", line});
  }
}

Task<void> Networks::State::audit() {
  for (;;) {
    boost::asio::steady_timer timer(loop, kAuditEvery);
    co_await timer.async_wait(boost::asio::use_awaitable);
    co_await heal_and_tell();
  }
}

Task<void> Networks::State::watch_links() {
  auto socket = std::make_shared<sys::NetlinkSocket>(
      NETLINK_ROUTE, std::vector<int>{RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR});
  async::Readable readable(loop, socket->duplicate_fd());
  for (;;) {
    co_await readable.wait();
    std::set<std::string> bridges, interfaces;
    const Wanted want = wanted();
    for (const auto& spec : want.bridges) bridges.insert(spec.name);
    for (const auto& port : want.ports) interfaces.insert(port.interface);
    bool look = false;
    const bool complete = socket->receive_events([&](const sys::NetlinkMessage& message) {
      if (message.type == RTM_DELADDR) look = true;
      if (message.type != RTM_NEWLINK && message.type != RTM_DELLINK) return;
      const sys::LinkInfo link = sys::parse_link(message);
      if (bridges.count(link.name) != 0) look = look || message.type == RTM_DELLINK || !link.up;
      if (interfaces.count(link.name) != 0) look = look || (message.type == RTM_NEWLINK && link.master == 0);
    });
    if (look || !complete) co_await heal_and_tell();
  }
}

Task<void> Networks::State::watch_firewall() {
  auto socket = std::make_shared<sys::NetlinkSocket>(NETLINK_NETFILTER, std::vector<int>{NFNLGRP_NFTABLES});
  async::Readable readable(loop, socket->duplicate_fd());
  for (;;) {
    co_await readable.wait();
    bool look = false;
    const bool complete = socket->receive_events([&](const sys::NetlinkMessage& message) {
      // Every transaction ends with one of these; it names the thread that made it.
      if (message.type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN)) return;
      const auto maker = message.attributes<nfgenmsg>().be32(NFTA_GEN_PROC_PID);
      look = look || maker != static_cast<std::uint32_t>(kernel->lane_thread.load());
    });
    if (look || !complete) co_await heal_and_tell();
  }
}

}  // namespace gantry::network
