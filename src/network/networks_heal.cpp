#include <algorithm>
#include <chrono>

#include <linux/netconf.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/readable.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "network/networks_state.hpp"

// Foreign changes are seen as the kernel announces them, and by an audit for what it does not announce.
namespace gantry::network {
namespace {

constexpr auto kSettle = std::chrono::milliseconds(50);  // changes come in groups; one look serves all of them
constexpr auto kAuditEvery = std::chrono::seconds(60);
// Whoever changes the same thing so often means it: we stop, say so, and try again after a while.
constexpr std::size_t kRepairsAtMost = 5;
constexpr auto kRepairWindow = std::chrono::seconds(60);
constexpr auto kPollEvery = std::chrono::seconds(1);  // for what the kernel does not announce and we must not miss
constexpr const char* kForeign = "other programs' packet filter";

// For one interface, all, or those to come.
bool switches_forwarding_off(const sys::NetlinkMessage& message) {
  const auto forwarding = message.attributes<netconfmsg>().u32(NETCONFA_FORWARDING);
  return forwarding && *forwarding == 0;
}

}  // namespace

RepairJob Networks::State::wanted() const {
  RepairJob out;
  for (const auto& [id, net] : networks) {
    if (net.leaving) continue;
    out.forward6 = out.forward6 || (net.row.enable_ipv6 && !net.row.config_only);
    if (net.is_bridge()) out.bridges.push_back(net.bridge_spec(options.mtu));
    else if (net.row.parent_is_ours) out.parents.push_back(net.row.parent);
  }
  out.forward4 = options.ip_forward;
  out.forward6 = out.forward6 && options.ip_forward;
  for (const auto& [id, member] : members) {
    for (const auto& row : member.endpoints) {
      auto net = networks.find(row.network_id);
      if (net == networks.end() || !net->second.is_bridge()) continue;
      out.ports.push_back({row.host_interface, net->second.row.bridge, net->second.isolates_containers()});
    }
  }
  return out;
}

// Sees to it that nothing is repaired more often than it makes sense.
std::set<std::string> Networks::State::paused_objects() {
  const auto now = std::chrono::steady_clock::now();
  std::set<std::string> paused;
  for (auto& [object, times] : repair_times) {
    while (!times.empty() && now - times.front() > kRepairWindow) times.pop_front();
    if (times.size() >= kRepairsAtMost) paused.insert(object);
  }
  std::erase_if(repair_times, [](const auto& entry) { return entry.second.empty(); });
  return paused;
}

Task<std::vector<std::string>> Networks::State::heal() {
  auto lock = co_await healing.lock("network.heal");
  RepairJob job = wanted();
  job.paused = paused_objects();
  KernelPtr to = kernel;
  RepairReport found = co_await lanes.net.run([to, job] {
    RepairReport out;
    repair_links(to->route, job, out);
    repair_forwarding(job, out);
    repair_firewall(to->firewall, job, out);
    return out;
  });
  if (job.paused.count(kForeign) == 0)
    for (auto& line : co_await look_at_foreign_rules()) found.repaired.push_back({kForeign, std::move(line)});
  std::vector<std::string> lines = note_repairs(std::move(found.repaired));
  std::set<std::string> problems;
  for (const auto& problem : found.problems) {
    problems.insert(problem.text);
    if (told_problems.count(problem.text) == 0) log::warning("network: cannot be repaired: {}", problem.text);
  }
  told_problems = std::move(problems);
  co_return lines;
}

std::vector<std::string> Networks::State::note_repairs(std::vector<Repair> repaired) {
  std::vector<std::string> lines;
  std::set<std::string> objects;
  for (auto& repair : repaired) {
    objects.insert(repair.object);
    tell_repair(repair);
    lines.push_back(std::move(repair.text));
  }
  repairs += lines.size();
  for (const auto& object : objects) {
    auto& times = repair_times[object];
    times.push_back(std::chrono::steady_clock::now());
    if (times.size() == kRepairsAtMost)
      log::warning("network: {} was changed {} times within a minute by something else: it is left alone for a while",
                   object, kRepairsAtMost);
  }
  return lines;
}

Task<std::vector<std::string>> Networks::State::look_at_foreign_rules() {
  struct Look {
    std::vector<std::string> added, warnings;
    bool poll = false;
  };
  KernelPtr to = kernel;
  Look look = co_await lanes.net.run([to] {
    Look out;
    out.added = to->foreign.look(to->firewall.socket());
    out.warnings = to->foreign.warnings();
    out.poll = to->foreign.needs_polling();
    return out;
  });
  for (const auto& warning : look.warnings)
    if (std::find(foreign_warnings.begin(), foreign_warnings.end(), warning) == foreign_warnings.end())
      log::warning("network: {}", warning);
  foreign_warnings = std::move(look.warnings);
  poll_foreign = look.poll && options.firewall_compat == "insert";
  co_return std::move(look.added);
}

void Networks::State::tell_repair(const Repair& repair) {
  log::warning("network: repaired after a foreign change: {}", repair.text);
  if (!on_event) return;
  NetworkEvent event;
  event.action = "heal";
  event.detail = repair.text;
  for (const auto& [id, net] : networks) {
    if (net.row.bridge.empty() || repair.object != "bridge " + net.row.bridge) continue;
    event.network_id = id;
    event.network_name = net.row.name;
    event.driver = net.row.driver;
  }
  on_event(event);
}

Task<void> Networks::State::heal_and_tell() {
  boost::asio::steady_timer timer(loop, kSettle);
  co_await timer.async_wait(boost::asio::use_awaitable);
  try {
    (void)co_await heal();
  } catch (const Error& e) {
    log::warning("network: repair failed: {}", e.log_detail());
  }
}

Task<void> Networks::State::audit() {
  auto last = std::chrono::steady_clock::now();
  for (;;) {
    boost::asio::steady_timer timer(loop, poll_foreign ? std::chrono::steady_clock::duration(kPollEvery) : kAuditEvery);
    co_await timer.async_wait(boost::asio::use_awaitable);
    const auto now = std::chrono::steady_clock::now();
    const bool only_poll = poll_foreign && now - last < kAuditEvery;
    if (only_poll) {
      co_await poll_foreign_rules();
      continue;
    }
    last = now;
    co_await heal_and_tell();
  }
}

Task<void> Networks::State::poll_foreign_rules() {
  auto lock = co_await healing.lock("network.poll");
  if (paused_objects().count(kForeign) != 0) co_return;
  try {
    for (auto& line : co_await look_at_foreign_rules()) note_repairs({{kForeign, std::move(line)}});
  } catch (const Error& e) {
    log::warning("network: repair failed: {}", e.log_detail());
  }
}

// Called for every change of a link on the host, so it must cost nothing for those that are none of ours.
bool Networks::State::is_damage(const sys::LinkInfo& link, bool removed) const {
  if (link.kind == "bridge") {
    for (const auto& [id, net] : networks) {
      if (net.row.bridge != link.name) continue;
      const auto mac = MacAddress::find(net.row.bridge_mac);
      return removed || !link.up || (net.row.bridge_is_ours && mac && link.mac != mac->raw());
    }
    return true;  // perhaps one of ours by another name
  }
  // Changes of a bridge's port come without the kind of the link.
  if (link.kind != "veth" && !link.port) {
    return removed && std::any_of(networks.begin(), networks.end(), [&](const auto& entry) {
             return entry.second.row.parent_is_ours && entry.second.row.parent == link.name;
           });
  }
  if (!removed && link.master != 0 && link.up && !link.port) return false;
  for (const auto& [id, member] : members) {
    for (const auto& row : member.endpoints) {
      if (row.host_interface != link.name) continue;
      const auto net = networks.find(row.network_id);
      return removed || link.master == 0 || !link.up || net == networks.end() ||
             has_wrong_flags(link, net->second.isolates_containers());
    }
  }
  return false;
}

Task<void> Networks::State::watch_links() {
  auto socket = std::make_shared<sys::NetlinkSocket>(
      NETLINK_ROUTE, std::vector<int>{RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_NETCONF,
                                      RTNLGRP_IPV6_NETCONF});
  async::Readable readable(loop, socket->duplicate_fd());
  for (;;) {
    co_await readable.wait();
    bool look = false;
    const bool complete = socket->receive_events([&](const sys::NetlinkMessage& message) {
      if (message.type == RTM_DELADDR) look = true;
      if (message.type == RTM_NEWNETCONF) look = look || switches_forwarding_off(message);
      if (message.type != RTM_NEWLINK && message.type != RTM_DELLINK) return;
      look = look || is_damage(sys::parse_link(message), message.type == RTM_DELLINK);
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
