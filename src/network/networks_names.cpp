#include <algorithm>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "network/networks_state.hpp"

// What the name servers of running containers know. Everything is rendered on the loop and written in the net lane,
// which keeps the order: the last state is the one that stays.
namespace gantry::network {

bool Networks::State::has_names(const db::EndpointRow& row) const {
  const auto net = networks.find(row.network_id);
  return options.embedded_dns && net != networks.end() && !net->second.row.predefined;
}

NameTable Networks::State::name_table(const Net& net) const {
  NameTable table{net.row.id, net.row.name, {}};
  for (const auto& [id, member] : members) {
    for (const auto& row : member.endpoints) {
      if (row.network_id != net.row.id) continue;
      NameTable::Entry entry{member.sandbox.container_name, {}, row.dns_names};
      for (const std::string* address : {&row.address, &row.address6})
        if (!address->empty()) entry.addresses.push_back(*address);
      table.entries.push_back(std::move(entry));
    }
  }
  return table;
}

void Networks::State::set_name_settings(Member& member, const AttachRequest& request) const {
  const ResolvSettings resolv = resolv_settings(request, member.endpoints);
  ContainerNames& names = member.names;
  names.servers = resolv.servers;
  names.host_resolv_conf = resolv.host_path;
  names.host_options = resolv.options.empty();
  names.ndots = chooses_ndots("options " + join(resolv.options, " "));
}

void Networks::State::set_links(Member& member, const std::string& network_id, std::vector<std::string> links) const {
  auto& known = member.names.networks;
  const auto it = std::ranges::find(known, network_id, &ContainerNames::Network::id);
  if (it != known.end()) it->links = std::move(links);
  else known.push_back({network_id, std::move(links)});
}

// Searched like the default route is chosen: what has a way out comes first.
ContainerNames Networks::State::container_names(const Member& member) const {
  std::vector<const db::EndpointRow*> rows;
  ContainerNames out = member.names;
  out.networks.clear();
  out.external = false;
  for (const auto& row : member.endpoints) {
    const auto net = networks.find(row.network_id);
    if (net == networks.end()) continue;
    out.external = out.external || !net->second.row.internal;
    if (has_names(row)) rows.push_back(&row);
  }
  const auto key = [this](const db::EndpointRow* row) {
    const db::NetworkRow& net = networks.at(row->network_id).row;
    return std::tuple(-row->gw_priority, net.internal, net.name);
  };
  std::ranges::sort(rows, [&](const auto* a, const auto* b) { return key(a) < key(b); });
  for (const auto* row : rows) {
    ContainerNames::Network entry{row->network_id, {}};
    for (const auto& known : member.names.networks)
      if (known.id == entry.id) entry.links = known.links;
    out.networks.push_back(std::move(entry));
  }
  return out;
}

// `network_ids`: whose tables are written. `container_id`: whose own file is; empty: none.
Task<void> Networks::State::write_names(std::vector<std::string> network_ids, std::string container_id) {
  struct Job {
    std::vector<NameTable> tables;
    std::optional<ContainerNames> container;
  } job;
  for (const auto& id : network_ids)
    if (const auto net = networks.find(id); net != networks.end()) job.tables.push_back(name_table(net->second));
  if (const auto member = members.find(container_id); member != members.end() && member->second.serves_names)
    job.container = container_names(member->second);
  if (job.tables.empty() && !job.container) co_return;
  co_await lanes.net.run([job, files = name_files, container_id] {
    for (const auto& table : job.tables) files.write_network(table);
    if (job.container) files.write_container(container_id, *job.container);
  });
}

std::vector<std::string> Networks::State::named_networks(const std::vector<db::EndpointRow>& rows) const {
  std::vector<std::string> out;
  for (const auto& row : rows)
    if (has_names(row)) out.push_back(row.network_id);
  return out;
}

// After a restart of the daemon the containers' own files are where their settings stand; they end with the containers.
Task<void> Networks::State::recover_names() {
  struct Job {
    std::vector<NameTable> tables;
    std::vector<std::string> networks, containers;
  } job;
  for (const auto& [id, net] : networks) {
    if (!net.is_bridge() || net.row.predefined) continue;
    job.tables.push_back(name_table(net));
    job.networks.push_back(id);
  }
  for (const auto& [id, member] : members)
    if (member.sandbox.kind == "own") job.containers.push_back(id);
  auto texts = co_await lanes.net.run([job, files = name_files] {
    const auto is_in = [](const auto& list, const auto& id) { return std::ranges::find(list, id) != list.end(); };
    for (const auto& id : files.networks())
      if (!is_in(job.networks, id)) files.remove_network(id);
    for (const auto& id : files.containers())
      if (!is_in(job.containers, id)) files.remove_container(id);
    for (const auto& table : job.tables) files.write_network(table);
    std::map<std::string, std::string> found;
    for (const auto& id : job.containers) found[id] = files.read_container(id);
    return found;
  });
  for (const auto& [id, text] : texts) {
    const auto member = members.find(id);
    if (member == members.end()) continue;
    const bool named = !named_networks(member->second.endpoints).empty();
    member->second.serves_names = !text.empty() || named;
    if (!member->second.serves_names) continue;
    member->second.names = parse_container_names(text);
    if (text.empty()) set_name_settings(member->second, {});
    refresh(member->second);
    co_await write_names({}, id);
  }
}

Task<void> Networks::State::rename(std::string container_id, std::string name) {
  const auto it = members.find(container_id);
  if (it == members.end()) co_return;
  Member& member = it->second;
  if (member.sandbox.container_name == name) co_return;
  const std::string old = std::exchange(member.sandbox.container_name, name);
  for (auto& row : member.endpoints) {
    std::vector<std::string>& names = row.dns_names;
    if (names.empty()) continue;
    // Its own name comes first; an alias that says the same stays.
    const bool also_alias = std::ranges::find(row.aliases, old) != row.aliases.end();
    if (!also_alias) std::erase(names, old);
    std::erase(names, name);
    names.insert(names.begin(), name);
  }
  refresh(member);
  co_await lanes.db.run([this, sandbox = member.sandbox, rows = member.endpoints] {
    db::update_sandbox(db, sandbox);
    db::update_endpoints(db, rows);
  });
  FAILPOINT("network.rename.after_row");
  if (const auto still = members.find(container_id); still != members.end())
    co_await write_names(named_networks(still->second.endpoints), {});
}

}  // namespace gantry::network
