#include <algorithm>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "network/conntrack.hpp"
#include "network/messages.hpp"
#include "network/networks_state.hpp"

namespace gantry::network {
namespace {

// The lowest number that none of the container's interfaces has.
std::string free_interface(const Member& member, const std::string& prefix) {
  for (unsigned n = 0;; ++n) {
    const std::string name = prefix + std::to_string(n);
    if (std::none_of(member.endpoints.begin(), member.endpoints.end(),
                     [&](const auto& row) { return row.interface == name; }))
      return name;
  }
}

// Exact lines, so that what the user wrote into the file stays.
void change_hosts(const sys::Path& directory, const std::vector<std::string>& add,
                  const std::vector<std::string>& remove_addresses) {
  if (directory.empty()) return;
  auto text = sys::find_file(directory / "hosts", 1 << 20);
  if (!text) return;
  std::string out;
  for (const auto& line : split(*text, '\n')) {
    const std::string address(split_once(line, '\t').first);
    if (std::find(remove_addresses.begin(), remove_addresses.end(), address) != remove_addresses.end()) continue;
    if (!line.empty()) out += line + "\n";
  }
  for (const auto& line : add) out += line + "\n";
  write_in_place(directory / "hosts", out);
}

std::string hosts_line(const db::LinkRow& link) { return link.address + "\t" + join(link.names, " "); }

/// The line of a link is replaced where it stands.
void replace_hosts(const sys::Path& directory, const std::vector<db::LinkRow>& before,
                   const std::vector<db::LinkRow>& after) {
  auto text = sys::find_file(directory / "hosts", 1 << 20);
  if (!text) return;
  std::string out;
  for (const auto& line : split(*text, '\n')) {
    if (line.empty()) continue;
    std::string now(line);
    for (std::size_t i = 0; i < before.size() && i < after.size(); ++i)
      if (now == hosts_line(before[i])) now = hosts_line(after[i]);
    out += now + "\n";
  }
  write_in_place(directory / "hosts", out);
}

Endpoint shown_endpoint(const Member& member, const std::string& id) {
  for (const auto& endpoint : member.shown.endpoints)
    if (endpoint.id == id) return endpoint;
  return {};
}

}  // namespace

Task<Endpoint> Networks::State::connect(std::string network, AttachRequest request, EndpointSettings settings) {
  Net& net = get_net(network);
  auto it = members.find(request.container_id);
  if (net.row.driver == "host") throw host_mode_is_fixed();
  if (it == members.end())
    throw Error(Errc::conflict, fmt::format("container {} is not running", request.container_id));
  Member& member = it->second;
  if (member.sandbox.kind != "own") throw shares_namespace();
  const Net* const own = find_net(request.network_mode);
  if (net.row.driver == "null" || (own != nullptr && own->row.driver == "null")) throw none_is_alone();
  for (const auto& row : member.endpoints)
    if (row.network_id == net.row.id) throw already_in_network(request.name, net.row.name);
  request.networks = {{net.row.name, settings}};

  Plan one(this);
  const std::string interface = free_interface(member, net.option("com.docker.network.container_iface_prefix", "eth"));
  one.endpoints.push_back(plan_endpoint(net, request, settings, interface));
  one.settings.push_back(settings);
  const std::string id = one.endpoints[0].id;
  const std::string container_id = request.container_id;
  Arrival arrival(*this, one.endpoints);
  co_await async::shielded(join_network(std::move(one), std::move(request)));
  auto joined = members.find(container_id);
  co_return joined == members.end() ? Endpoint() : shown_endpoint(joined->second, id);
}

Task<void> Networks::State::join_network(Plan one, AttachRequest request) {
  const db::EndpointRow row = one.endpoints[0];
  co_await lanes.db.run([this, row] { db::insert_endpoint(db, row); });
  std::vector<std::string> lines;
  for (const auto& line : hosts_lines(request, {row}))
    if (line.address == row.address || line.address == row.address6)
      lines.push_back(line.address + "\t" + join(line.names, " "));
  KernelPtr to = kernel;
  const sys::Path path = options.netns_directory / request.container_id;
  std::exception_ptr failure;
  try {
    FAILPOINT("network.connect.after_row");
    co_await lanes.net.run(
        [to, path, spec = interface_spec(row, one.settings[0]), lines, directory = request.container_directory] {
          announce_before(to->announcer, spec);
          add_interface(to->route, path, spec);
          FAILPOINT("network.connect.after_interface");
          change_hosts(directory, lines, {});
          announce_after(to->announcer, to->route, spec);
        });
  } catch (const Error&) {
    failure = std::current_exception();
  }
  auto member = members.find(request.container_id);
  if (failure || member == members.end()) {
    co_await lanes.net.run([to, path, spec = interface_spec(row, one.settings[0])] {
      if (spec.vlan_kind.empty()) remove_interface(to->route, spec.outer_name);
      else remove_inner_interface(path, spec.inner_name);
    });
    co_await lanes.db.run([this, id = row.id] { db::remove_endpoint(db, id); });
    if (failure) std::rethrow_exception(failure);
    throw Error(Errc::conflict, fmt::format("container {} ended meanwhile", request.container_id));
  }
  member->second.endpoints.push_back(row);
  one.keep();
  announce(request.container_id, row);
  try {
    co_await start_names(row, request, one.settings[0].links);
    FAILPOINT("network.connect.after_names");
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await leave_network(request.container_id, row);
    std::rethrow_exception(failure);
  }
  co_await move_gateways(request.container_id);
  if (auto net = networks.find(row.network_id); net != networks.end())
    tell("connect", net->second, request.container_id);
}

// The container's name server, which runs from now on, knows the new network and the network knows the container.
Task<void> Networks::State::start_names(db::EndpointRow row, AttachRequest request, std::vector<std::string> links) {
  const auto it = members.find(request.container_id);
  if (it == members.end()) co_return;
  Member& member = it->second;
  set_links(member, row.network_id, std::move(links));
  const bool is_first = has_names(row) && !member.serves_names;
  if (is_first) {
    set_name_settings(member, request);
    member.serves_names = true;
  }
  refresh(member);
  const Files files = files_for(request, member.endpoints);
  co_await write_names(named_networks({row}), request.container_id);
  if (is_first) co_await lanes.net.run([files] { change_resolv_conf(files); });
}

// The default routes and the published ports go where they belong now that the container's networks have changed.
Task<void> Networks::State::move_gateways(std::string container_id) {
  Member& member = members.at(container_id);
  std::vector<db::EndpointRow> rows = member.endpoints;
  choose_gateways(rows);
  std::vector<db::PublishedPortRow> all;
  for (auto& row : rows) {
    all.insert(all.end(), row.ports.begin(), row.ports.end());
    row.ports.clear();
  }
  db::EndpointRow* gateway4 = nullptr;
  db::EndpointRow* gateway6 = nullptr;
  for (auto& row : rows) {
    if (row.ipv4_gateway) gateway4 = &row;
    if (row.ipv6_gateway) gateway6 = &row;
  }
  // Where no gateway is left the ports stay reserved with the first endpoint; nothing leads to them until one comes.
  db::EndpointRow* fallback = gateway4 != nullptr ? gateway4 : gateway6 != nullptr ? gateway6 : &rows.front();
  for (auto& port : all) {
    const bool v6 = port.host_ip.find(':') != std::string::npos;
    db::EndpointRow* to = v6 && gateway6 != nullptr ? gateway6 : fallback;
    port.endpoint_id = to->id;
    to->ports.push_back(port);
  }
  struct Job {
    std::vector<std::pair<std::string, std::vector<PublishRule>>> rules;
    DefaultRoute route4, route6;
  } job;
  for (const auto& row : rows) job.rules.emplace_back(row.id, publish_rules(row));
  if (gateway4 != nullptr) job.route4 = default_route(*gateway4, Family::v4);
  if (gateway6 != nullptr) job.route6 = default_route(*gateway6, Family::v6);
  co_await lanes.db.run([this, rows] { db::update_endpoints(db, rows); });
  KernelPtr to = kernel;
  const sys::Path path = options.netns_directory / container_id;
  co_await lanes.net.run([to, path, job] {
    set_gateways(path, job.route4, job.route6);
    // Removed everywhere before anything is added: one host port is one element.
    for (const auto& [id, rules] : job.rules) to->firewall.unpublish(id);
    for (const auto& [id, rules] : job.rules) to->firewall.publish(id, rules);
  });
  if (auto it = members.find(container_id); it != members.end()) {
    it->second.endpoints = rows;
    refresh(it->second);
  }
}

Task<void> Networks::State::relink(std::string container_id, sys::Path directory, std::vector<HostsLink> links) {
  const auto it = members.find(container_id);
  if (it == members.end()) co_return;
  std::vector<db::LinkRow> after;
  for (auto& link : links) after.push_back({link.address, link.names, link.ports});
  for (auto& row : it->second.endpoints) {
    if (!networks.at(row.network_id).is_default_bridge() || row.links == after) continue;
    const std::vector<db::LinkRow> before = std::exchange(row.links, after);
    const db::EndpointRow changed = row;
    co_await lanes.db.run([this, changed] { db::update_endpoints(db, {changed}); });
    FAILPOINT("network.relink.after_row");
    KernelPtr to = kernel;
    co_await lanes.net.run([to, before, after, directory, id = changed.id, rules = publish_rules(changed)] {
      replace_hosts(directory, before, after);
      to->firewall.publish(id, rules);
    });
    co_return;
  }
}

Task<void> Networks::State::disconnect(std::string network, std::string container, bool force) {
  Net& net = get_net(network);
  auto it = members.find(container);
  if (it == members.end())
    it = std::find_if(members.begin(), members.end(),
                      [&](const auto& entry) { return entry.second.sandbox.container_name == container; });
  if (it == members.end()) {
    if (force) co_return;
    throw not_connected(container, net.row.name);
  }
  Member& member = it->second;
  if (net.row.driver == "host") throw host_mode_not_disconnected();
  auto row = std::find_if(member.endpoints.begin(), member.endpoints.end(),
                          [&](const auto& endpoint) { return endpoint.network_id == net.row.id; });
  if (row == member.endpoints.end()) {
    if (force) co_return;
    throw not_connected(it->first, net.row.name);
  }
  co_await async::shielded(leave_network(it->first, *row));
}

Task<void> Networks::State::leave_network(std::string container_id, db::EndpointRow row) {
  Member& member = members.at(container_id);
  std::erase_if(member.endpoints, [&](const auto& endpoint) { return endpoint.id == row.id; });
  try {
    co_await write_names(named_networks({row}), container_id);
  } catch (const Error& e) {
    log::debug("names of container {} are not withdrawn: {}", container_id, e.log_detail());
  }
  KernelPtr to = kernel;
  std::vector<IpAddress> addresses;
  std::vector<std::string> texts;
  for (const std::string* text : {&row.address, &row.address6}) {
    if (auto ip = IpAddress::find(*text)) {
      addresses.push_back(*ip);
      texts.push_back(*text);
    }
  }
  const auto here = members.find(container_id);
  co_await lanes.net.run([to, row, addresses, texts, path = options.netns_directory / container_id,
                          inner = row.host_interface.empty(),
                          directory = here == members.end() ? sys::Path() : here->second.directory] {
    to->firewall.unpublish(row.id);
    if (inner) remove_inner_interface(path, row.interface);
    else remove_interface(to->route, row.host_interface);
    forget_flows(addresses);
    change_hosts(directory, {}, texts);
  });
  FAILPOINT("network.disconnect.after_interface");
  // Its ports stay with the container while it has another network to lead them to.
  db::EndpointRow without_ports = row;
  auto still = members.find(container_id);
  const bool others = still != members.end() && !still->second.endpoints.empty();
  if (others && !row.ports.empty()) {
    auto& heir = still->second.endpoints.front();
    for (auto port : row.ports) {
      port.endpoint_id = heir.id;
      heir.ports.push_back(port);
    }
    without_ports.ports.clear();
    std::vector<db::EndpointRow> changed{without_ports, heir};
    co_await lanes.db.run([this, changed] { db::update_endpoints(db, changed); });
  }
  co_await lanes.db.run([this, id = row.id] { db::remove_endpoint(db, id); });
  release(without_ports);
  if (others) co_await move_gateways(container_id);
  else if (still != members.end()) refresh(still->second);
  if (auto net = networks.find(row.network_id); net != networks.end()) tell("disconnect", net->second, container_id);
}

}  // namespace gantry::network
