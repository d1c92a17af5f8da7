#include <algorithm>
#include <chrono>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "network/conntrack.hpp"
#include "network/messages.hpp"
#include "network/networks_state.hpp"

namespace gantry::network {
namespace {

constexpr std::string_view kJoin = "container:";

std::vector<std::string> outer_names(const std::vector<db::EndpointRow>& rows) {
  std::vector<std::string> out;
  for (const auto& row : rows)
    if (!row.host_interface.empty()) out.push_back(row.host_interface);
  return out;
}

}  // namespace

void Networks::State::announce(const std::string& container_id, const db::EndpointRow& row) {
  if (watchers) watchers->spawn("network.announce", announce_again(container_id, row));
}

// Through a bridge the first time was when the interface came up; what could be lost then is said again.
Task<void> Networks::State::announce_again(std::string container_id, db::EndpointRow row) {
  const auto net = networks.find(row.network_id);
  if (net == networks.end()) co_return;
  const std::string bridge = net->second.is_bridge() ? net->second.row.bridge : "";
  if (bridge.empty() && net->second.row.driver != "macvlan") co_return;  // the others share their parent's MAC address
  const unsigned times = net->second.announcements();
  const auto every = net->second.announce_every();
  const AddressOwner owner{MacAddress::find(row.mac).value_or(MacAddress{}),
                           IpAddress::find(row.address).value_or(IpAddress()),
                           IpAddress::find(row.address6).value_or(IpAddress())};
  const sys::Path path = options.netns_directory / container_id;
  for (unsigned n = bridge.empty() ? 0 : 1; n < times; ++n) {
    if (n > 0) {
      boost::asio::steady_timer timer(loop, every);
      co_await timer.async_wait(boost::asio::use_awaitable);
    }
    // The address may have another owner by now.
    const auto member = members.find(container_id);
    if (member == members.end() ||
        std::ranges::none_of(member->second.endpoints, [&](const db::EndpointRow& now) { return now.id == row.id; }))
      co_return;
    if (bridge.empty())
      co_await lanes.quick.run([path, interface = row.interface, owner] { announce_inside(path, interface, owner); });
    else co_await lanes.net.run([to = kernel, bridge, owner] { to->announcer.announce(bridge, owner); });
  }
}

Task<AttachResult> Networks::State::attach(AttachRequest request) {
  // A start that was cut off half-way may have left something.
  if (members.count(request.container_id) != 0) co_await detach(request.container_id);
  try {
    if (request.network_mode == "host") co_return co_await async::shielded(attach_host(std::move(request)));
    if (request.network_mode.compare(0, kJoin.size(), kJoin) == 0) {
      std::string donor = request.network_mode.substr(kJoin.size());
      co_return co_await async::shielded(attach_joined(std::move(request), std::move(donor)));
    }
    co_return co_await async::shielded(attach_own(std::move(request)));
  } catch (Error& e) {
    // What the kernel refused is no fault of the request's, whatever errno says.
    if (e.sys_errno() != 0) throw Error(Errc::internal, fmt::format("{}: {}", kSetupFailed, e.message()));
    const bool final_text =
        e.code() == Errc::not_found || e.code() == Errc::invalid_argument || e.code() == Errc::conflict;
    if (!final_text) e.prefix(kSetupFailed);
    throw;
  }
}

Task<AttachResult> Networks::State::attach_host(AttachRequest request) {
  Plan host(this);
  host.sandbox.container_id = request.container_id;
  host.sandbox.container_name = request.name;
  host.sandbox.kind = "host";
  Files files = files_for(request, {});
  co_await lanes.db.run([this, row = host.sandbox] { db::insert_sandbox(db, row, {}); });
  std::exception_ptr failure;
  try {
    co_await lanes.quick.run([files] { write_files(files); });
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await take_back(request.container_id, {});
    std::rethrow_exception(failure);
  }
  AttachResult result = enter(std::move(host), request);
  if (!request.port_bindings.empty() || request.publish_all) result.warnings.emplace_back(kPortsDiscarded);
  co_return std::move(result);
}

Task<AttachResult> Networks::State::attach_joined(AttachRequest request, std::string donor) {
  auto it = members.find(donor);
  if (it == members.end()) throw donor_not_running(donor);
  // A donor that itself joined somebody: the namespace is what counts.
  while (it->second.sandbox.kind == "joined") {
    it = members.find(it->second.sandbox.donor);
    if (it == members.end()) throw donor_not_running(donor);
  }
  Plan joined(this);
  joined.sandbox.container_id = request.container_id;
  joined.sandbox.container_name = request.name;
  joined.sandbox.kind = it->second.sandbox.kind == "host" ? "host" : "joined";
  joined.sandbox.donor = it->first;
  co_await lanes.db.run([this, row = joined.sandbox] { db::insert_sandbox(db, row, {}); });
  co_return enter(std::move(joined), request);
}

Task<AttachResult> Networks::State::attach_own(AttachRequest request) {
  Plan own = plan(request);
  Arrival arrival(*this, own.endpoints);
  Files files = files_for(request, own.endpoints);
  co_await lanes.db.run(
      [this, row = own.sandbox, endpoints = own.endpoints] { db::insert_sandbox(db, row, endpoints); });
  std::exception_ptr failure;
  try {
    FAILPOINT("network.attach.after_row");
    co_await build(own, std::move(files), request.user_namespace);
    FAILPOINT("network.attach.after_kernel");
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await take_back(request.container_id, own.endpoints);
    std::rethrow_exception(failure);
  }
  AttachResult result = enter(std::move(own), request);
  try {
    co_await write_names(named_networks(members.at(request.container_id).endpoints), request.container_id);
    FAILPOINT("network.attach.after_names");
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await detach(request.container_id);
    std::rethrow_exception(failure);
  }
  for (const auto& endpoint : result.attachment.endpoints) {
    const auto net = networks.find(endpoint.network_id);
    if (net == networks.end()) continue;
    tell("connect", net->second, request.container_id);
  }
  if (auto it = members.find(request.container_id); it != members.end())
    for (const auto& row : it->second.endpoints) announce(request.container_id, row);
  co_return std::move(result);
}

// Everything in the kernel, in one visit to the net lane: two milliseconds. Not a coroutine: `own` need not outlive it.
Task<void> Networks::State::build(const Plan& own, Files files, sys::Path user_namespace) {
  struct Job {
    std::vector<InterfaceSpec> interfaces;
    std::vector<std::pair<std::string, std::vector<PublishRule>>> rules;
    std::vector<std::uint16_t> udp_ports;
  } job;
  for (std::size_t i = 0; i < own.endpoints.size(); ++i) {
    const auto& row = own.endpoints[i];
    job.interfaces.push_back(interface_spec(row, own.settings[i]));
    if (auto rules = publish_rules(row); !rules.empty()) job.rules.emplace_back(row.id, std::move(rules));
    for (const auto& port : row.ports)
      if (port.proto == "udp") job.udp_ports.push_back(static_cast<std::uint16_t>(port.host_port));
  }
  const sys::Path path = options.netns_directory / own.sandbox.container_id;
  KernelPtr to = kernel;
  return lanes.net.run([job, path, to, files, user_namespace] {
    write_files(files);
    for (const auto& interface : job.interfaces) announce_before(to->announcer, interface);
    create_sandbox(to->route, path, job.interfaces, user_namespace);
    FAILPOINT("network.attach.after_sandbox");
    for (const auto& [endpoint, rules] : job.rules) to->firewall.publish(endpoint, rules);
    // Clients that sent before the port was published would stay with the host.
    if (!job.udp_ports.empty()) forget_udp_flows(job.udp_ports);
    for (const auto& interface : job.interfaces) announce_after(to->announcer, to->route, interface);
  });
}

AttachResult Networks::State::enter(Plan plan, const AttachRequest& request) {
  Member& member = members[request.container_id];
  member.sandbox = std::move(plan.sandbox);
  member.endpoints = std::move(plan.endpoints);
  member.directory = request.container_directory;
  member.names = {};
  member.serves_names = !named_networks(member.endpoints).empty();
  set_name_settings(member, request);
  for (std::size_t i = 0; i < plan.settings.size(); ++i)
    set_links(member, member.endpoints[i].network_id, std::move(plan.settings[i].links));
  refresh(member);
  plan.keep();
  return {member.shown, std::move(plan.sockets), {}};
}

// Kernel first, then the rows: whatever is cut off here is found again by recover().
Task<void> Networks::State::take_back(std::string container_id, std::vector<db::EndpointRow> endpoints) {
  std::vector<IpAddress> addresses;
  for (const auto& row : endpoints)
    for (const std::string* text : {&row.address, &row.address6})
      if (auto ip = IpAddress::find(*text)) addresses.push_back(*ip);
  const sys::Path path = options.netns_directory / container_id;
  const NameFiles files = name_files;
  KernelPtr to = kernel;
  co_await lanes.net.run([=] {
    for (const auto& row : endpoints) to->firewall.unpublish(row.id);
    FAILPOINT("network.detach.after_unpublish");
    files.remove_container(container_id);
    remove_sandbox(to->route, path, outer_names(endpoints));
    if (!addresses.empty()) forget_flows(addresses);
  });
  FAILPOINT("network.detach.after_kernel");
  co_await lanes.db.run([this, container_id] { db::remove_sandbox(db, container_id); });
}

Task<void> Networks::State::detach(std::string container_id) {
  auto found = members.extract(container_id);
  if (found.empty()) co_return;
  try {
    co_await async::shielded(write_names(named_networks(found.mapped().endpoints), {}));
    FAILPOINT("network.detach.after_names");
  } catch (const Error& e) {
    // The name leads nowhere from now on, whether it is known or not; the next change writes the table anew.
    log::debug("names of container {} are not withdrawn: {}", container_id, e.log_detail());
  }
  std::exception_ptr failure;
  try {
    co_await async::shielded(take_back(container_id, found.mapped().endpoints));
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    // Still ours, so that the next attempt finds it.
    members.insert(std::move(found));
    std::rethrow_exception(failure);
  }
  for (const auto& row : found.mapped().endpoints) {
    release(row);
    if (auto net = networks.find(row.network_id); net != networks.end()) tell("disconnect", net->second, container_id);
  }
}

}  // namespace gantry::network
