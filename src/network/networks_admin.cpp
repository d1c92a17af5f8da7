#include <algorithm>
#include <iterator>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "network/messages.hpp"
#include "network/network_options.hpp"
#include "network/networks_state.hpp"
#include "network/vlan.hpp"

namespace gantry::network {
namespace {

void check_driver(const NetworkSpec& spec) {
  if (spec.driver == "bridge" || spec.driver == "macvlan" || spec.driver == "ipvlan") return;
  if (spec.driver == "host" || spec.driver == "null")
    throw Error(Errc::forbidden, fmt::format("only one instance of \"{}\" network is allowed", spec.driver));
  if (spec.driver == "overlay")
    throw Error(Errc::forbidden,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this "
                "node to swarm and try again.");
  throw Error(Errc::not_found, fmt::format("plugin \"{}\" not found", spec.driver));
}

bool has_own_settings(const NetworkSpec& spec) {
  return (spec.ipam_driver != "default" && !spec.ipam_driver.empty()) || !spec.enable_ipv4.value_or(true) ||
         spec.enable_ipv6.value_or(false) || !spec.labels.empty() || !spec.ipam_options.empty() || !spec.ipam.empty();
}

void check_configuration(const NetworkSpec& spec) {
  if (spec.config_only) {
    if (spec.internal || spec.attachable)
      throw Error(Errc::forbidden,
                  "configuration network can only contain network specific fields. Network operator fields like [ "
                  "ingress | internal | attachable | scope ] are not supported.");
    if (!spec.config_from.empty())
      throw Error(Errc::forbidden, "a configuration network cannot depend on another configuration network");
  }
  if (spec.config_from.empty()) return;
  if (has_own_settings(spec))
    throw Error(Errc::forbidden,
                "user specified configurations are not supported if the network depends on a configuration network");
  if (!spec.options.empty())
    throw Error(Errc::forbidden,
                "network driver options are not supported if the network depends on a configuration network");
}

/// No address is set aside where nobody could be reached at it.
bool needs_gateway(const db::NetworkRow& row, Family family) {
  auto option = [&](const char* name) {
    auto it = row.options.find(std::string("com.docker.network.bridge.") + name);
    return it == row.options.end() ? std::string() : it->second;
  };
  if (row.driver != "bridge") return !row.internal && !is_dummy_parent(row.parent);
  if (option(family == Family::v4 ? "gateway_mode_ipv4" : "gateway_mode_ipv6") == "isolated") return false;
  const std::string inhibit = to_lower(option("inhibit_ipv4"));
  return !(family == Family::v4 && row.internal && (inhibit == "true" || inhibit == "1" || inhibit == "t"));
}

// fd<40 bits that belong to this installation>::/48, as RFC 4193 wants it.
AddressPool own_ipv6_pool(const std::string& installation) {
  const std::string digits = installation.substr(0, 10);
  const std::string text =
      fmt::format("fd{}:{}:{}::/48", digits.substr(0, 2), digits.substr(2, 4), digits.substr(6, 4));
  return {Cidr::parse(text), 64};
}

}  // namespace

void Networks::State::apply_configuration(NetworkSpec& spec) {
  const Net* from = find_net(spec.config_from);
  if (from == nullptr || !from->row.config_only)
    throw Error(Errc::not_found, fmt::format("configuration network {} does not exist", quote(spec.config_from)));
  const db::NetworkRow& row = from->row;
  spec.config_from = row.name;
  spec.enable_ipv4 = row.enable_ipv4;
  spec.enable_ipv6 = row.enable_ipv6;
  spec.ipam_driver = row.ipam_driver;
  spec.ipam_options = row.ipam_options;
  spec.options = row.options;
  spec.labels = row.labels;
  for (const auto& pool : row.pools) spec.ipam.push_back({pool.subnet, pool.ip_range, pool.gateway, pool.auxiliary});
}

db::NetworkRow Networks::State::new_row(const NetworkSpec& spec) {
  db::NetworkRow row;
  row.id = random_id();
  row.name = spec.name;
  row.created_ns = now().time_since_epoch().count();
  row.driver = spec.driver;
  row.enable_ipv4 = spec.enable_ipv4.value_or(true);
  row.enable_ipv6 = spec.enable_ipv6.value_or(false);
  if (!row.enable_ipv4 && !row.enable_ipv6) throw Error(Errc::invalid_argument, "IPv4 or IPv6 must be enabled");
  row.internal = spec.internal;
  row.attachable = spec.attachable;
  row.ipam_driver = spec.ipam_driver.empty() ? "default" : spec.ipam_driver;
  if (row.ipam_driver != "default")
    throw Error(Errc::not_found, fmt::format("plugin \"{}\" not found", row.ipam_driver));
  row.ipam_options = spec.ipam_options;
  row.options = spec.options;
  row.labels = spec.labels;
  row.config_only = spec.config_only;
  row.config_from = spec.config_from;
  validate_ipam(spec.ipam, row.enable_ipv6);
  if (row.config_only) {
    row.driver = "null";
    for (const IpamConfig& config : spec.ipam)
      row.pools.push_back({config.subnet, config.ip_range, config.gateway, config.auxiliary_addresses});
  } else if (row.driver == "bridge") {
    row.bridge_mac = MacAddress::random().str();
    auto named = spec.options.find(kBridgeName);
    row.bridge = named == spec.options.end() ? "br-" + row.id.substr(0, 12) : named->second;
  } else {
    row.parent = parse_vlan_options(row.driver, row.options).parent;
    if (row.parent.empty()) row.parent = dummy_parent(row.id);
  }
  return row;
}

void Networks::State::check_conflicts(db::NetworkRow& row) const {
  for (const auto& [id, net] : networks) {
    if (net.row.name == row.name) throw network_exists(row.name);
    if (net.row.bridge == row.bridge && !row.bridge.empty())
      throw Error(Errc::forbidden,
                  fmt::format("cannot create network {} ({}): conflicts with network {} ({}): networks "
                              "have same bridge name",
                              row.id, row.bridge, id, net.row.bridge));
    if (!row.parent.empty() && net.row.parent == row.parent) {
      if (row.driver == "macvlan" && net.row.driver == "macvlan") {
        auto passthru = [](const db::NetworkRow& one) {
          return parse_vlan_options(one.driver, one.options).mode == "passthru";
        };
        if (passthru(row))
          throw Error(Errc::internal,
                      fmt::format("cannot use mode passthru, macvlan network {} is already using parent interface {}",
                                  id, row.parent));
        if (passthru(net.row))
          throw Error(
              Errc::internal,
              fmt::format("macvlan network {} is already using parent interface {} in mode passthru", id, row.parent));
      }
      row.parent_is_ours = row.parent_is_ours || net.row.parent_is_ours;
    }
  }
}

Task<Networks::Created> Networks::State::create_network(NetworkSpec spec) {
  if (trim(spec.name).empty()) throw Error(Errc::invalid_argument, "invalid name: name is empty");
  if (spec.name == "bridge" || spec.name == "host" || spec.name == "none" || spec.name == "default")
    throw predefined_not_permitted(spec.name);
  if (spec.driver.empty()) spec.driver = "bridge";
  check_driver(spec);
  check_configuration(spec);
  auto lock = co_await admin.lock("network.create");
  if (spec.config_from.empty()) apply_default_options(spec, options.default_network_opts);
  else apply_configuration(spec);
  if (spec.driver == "bridge" && !spec.config_only) check_bridge_options(spec.options, spec.internal);
  db::NetworkRow row = new_row(spec);
  check_conflicts(row);
  if (row.config_only) {
    co_await async::shielded(make_network(row));
    co_return Networks::Created{row.id, ""};
  }
  std::vector<std::string> own_bridges;
  for (const auto& [id, net] : networks)
    if (!net.row.bridge.empty()) own_bridges.push_back(net.row.bridge);
  KernelPtr to = kernel;
  struct Facts {
    std::vector<Cidr> occupied;
    bool bridge_exists = false;
    bool parent_exists = false;
  };
  const Facts facts = co_await lanes.net.run([to, own_bridges, row, this] {
    const std::string resolv_conf = sys::find_file(options.host_resolv_conf, 1 << 20).value_or("");
    Facts out;
    out.occupied = occupied_subnets(to->route, resolv_conf, own_bridges);
    out.bridge_exists = !row.bridge.empty() && sys::find_link(to->route, row.bridge).has_value();
    if (row.parent.empty()) return out;
    require_vlan_kind(to->route, row.driver);
    out.parent_exists = sys::find_link(to->route, row.parent).has_value();
    return out;
  });
  row.bridge_is_ours = !facts.bridge_exists;
  if (!row.parent.empty() && !facts.parent_exists) row.parent_is_ours = true;
  choose_subnets(row, spec, facts.occupied);
  co_await async::shielded(make_network(row));
  co_return Networks::Created{row.id, ""};
}

std::string Networks::State::pool_holders(Family family) const {
  std::vector<std::string> pools, holders;
  for (const AddressPool& pool : plan_of_subnets.pools())
    if (pool.base.address.family() == family)
      pools.push_back(fmt::format("{} in parts of /{}", pool.base.str(), pool.size));
  for (const auto& [id, net] : networks)
    if (const AddressRange* range = net.range(family))
      holders.push_back(fmt::format("{} {}", net.row.name, range->subnet().str()));
  constexpr std::size_t kShown = 20;
  const std::size_t more = holders.size() > kShown ? holders.size() - kShown : 0;
  std::sort(holders.begin(), holders.end());
  holders.resize(holders.size() - more);
  return fmt::format(" (default-address-pools: {}; held by: {}{})", join(pools, ", "), join(holders, ", "),
                     more == 0 ? "" : fmt::format(" and {} more", more));
}

Cidr Networks::State::free_subnet(Family family, const std::vector<Cidr>& used, const std::vector<Cidr>& occupied,
                                  unsigned size) const {
  auto found = plan_of_subnets.find(family, used, occupied, size);
  if (!found && family == Family::v6) {
    std::string installation = random_id();
    for (const auto& [id, net] : networks)
      if (net.row.predefined && net.row.name == "host") installation = id;
    found = SubnetPlan({own_ipv6_pool(installation)}).find(family, used, occupied, size);
  }
  if (!found) throw pools_exhausted(pool_holders(family));
  return *found;
}

void Networks::State::choose_subnets(db::NetworkRow& row, const NetworkSpec& spec, const std::vector<Cidr>& occupied) {
  std::vector<Cidr> used = used_subnets();
  for (Family family : {Family::v4, Family::v6}) {
    if (!(family == Family::v4 ? row.enable_ipv4 : row.enable_ipv6)) continue;
    std::vector<IpamConfig> configs;
    std::ranges::copy_if(spec.ipam, std::back_inserter(configs), [&](const IpamConfig& config) {
      const auto subnet = Cidr::find(config.subnet);
      return subnet ? subnet->address.family() == family : family == Family::v4;
    });
    if (configs.size() > 1 && row.driver == "bridge")
      throw Error(Errc::forbidden, fmt::format("{} driver doesn't support multiple subnets", row.driver));
    if (configs.empty()) configs.emplace_back();
    for (const IpamConfig& config : configs) row.pools.push_back(choose_pool(row, family, config, used, occupied));
  }
}

db::NetworkPoolRow Networks::State::choose_pool(const db::NetworkRow& row, Family family, const IpamConfig& config,
                                                std::vector<Cidr>& used, const std::vector<Cidr>& occupied) const {
  db::NetworkPoolRow pool{config.subnet, config.ip_range, config.gateway, config.auxiliary_addresses};
  const auto wanted = Cidr::find(config.subnet);
  // Without an address: any subnet of this size.
  if (!wanted || wanted->address.is_any())
    pool.subnet = free_subnet(family, used, occupied, wanted ? wanted->length : 0).str();
  else if (std::ranges::any_of(used, [&](const Cidr& taken) { return taken.overlaps(*wanted); })) throw pool_overlaps();
  const Cidr subnet = Cidr::parse(pool.subnet);
  AddressRange range(subnet, Cidr::find(pool.ip_range).value_or(Cidr{}));
  for (const auto& [name, address] : pool.auxiliary) range.reserve(IpAddress::parse(address));
  if (pool.gateway.empty() && needs_gateway(row, family)) pool.gateway = range.take_any(row.name, row.id).str();
  used.push_back(subnet);
  return pool;
}

Task<void> Networks::State::make_network(db::NetworkRow row) {
  co_await lanes.db.run([this, row] { db::insert_network(db, row); });
  enter_network(row);
  Net& net = networks.at(row.id);
  net.leaving = true;  // not there for others until it is complete
  KernelPtr to = kernel;
  std::exception_ptr failure;
  try {
    FAILPOINT("network.create.after_row");
    if (row.parent_is_ours) co_await lanes.net.run([to, parent = row.parent] { ensure_parent(to->route, parent); });
    FAILPOINT("network.create.after_parent");
    if (net.is_bridge())
      co_await lanes.net.run(
          [to, spec = net.bridge_spec(options.mtu), rules = rules_of(net), ipv6 = row.enable_ipv6, this] {
            std::vector<std::string> changes;
            ensure_bridge(to->route, spec, changes);
            FAILPOINT("network.create.after_bridge");
            to->firewall.add_bridge(rules);
            if (ipv6 && options.ip_forward) enable_forwarding(Family::v6);
          });
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await unmake_network(row);
    std::rethrow_exception(failure);
  }
  networks.at(row.id).leaving = false;
  tell("create", networks.at(row.id), "");
}

Task<void> Networks::State::unmake_network(db::NetworkRow row) {
  KernelPtr to = kernel;
  const bool last_on_parent = std::none_of(networks.begin(), networks.end(), [&](const auto& entry) {
    return entry.first != row.id && entry.second.row.parent == row.parent;
  });
  co_await lanes.net.run([to, row, files = name_files, last_on_parent] {
    to->firewall.remove_bridge(row.bridge);
    FAILPOINT("network.remove.after_firewall");
    if (row.driver == "bridge" && row.bridge_is_ours) remove_bridge(to->route, row.bridge);
    if (row.parent_is_ours && last_on_parent) remove_parent(to->route, row.parent);
    files.remove_network(row.id);
  });
  FAILPOINT("network.remove.after_bridge");
  co_await lanes.db.run([this, id = row.id] { db::remove_network(db, id); });
  networks.erase(row.id);
}

Task<void> Networks::State::remove_network(std::string name) {
  auto lock = co_await admin.lock("network.remove");
  Net& net = get_net(name);
  if (net.row.predefined) throw network_predefined(net.row.name);
  for (const auto& [id, other] : networks)
    if (net.row.config_only && other.row.config_from == net.row.name)
      throw Error(Errc::forbidden, fmt::format("configuration network {} is in use", quote(net.row.name)));
  std::vector<std::string> holders;
  for (const auto& member : describe(net).members)
    holders.push_back(fmt::format("name:\"{}\" id:\"{}\"", member.name, member.endpoint_id.substr(0, 12)));
  if (!holders.empty()) throw network_in_use(net.row.name, join(holders, ", "));
  const bool busy = std::any_of(arriving.begin(), arriving.end(), [&](const auto& id) { return id == net.row.id; });
  if (busy) throw network_in_use(net.row.name, "a container is being connected");
  net.leaving = true;
  const Net gone = net;
  std::exception_ptr failure;
  try {
    co_await async::shielded(unmake_network(gone.row));
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    if (auto it = networks.find(gone.row.id); it != networks.end()) it->second.leaving = false;
    std::rethrow_exception(failure);
  }
  tell("destroy", gone, "");
}

}  // namespace gantry::network
