#include <algorithm>

#include <net/if.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "network/messages.hpp"
#include "network/networks_state.hpp"

namespace gantry::network {
namespace {

constexpr const char* kBridgeName = "com.docker.network.bridge.name";

void check_driver(const NetworkSpec& spec) {
  if (spec.driver == "bridge" || spec.driver.empty()) return;
  if (spec.driver == "host" || spec.driver == "null")
    throw Error(Errc::forbidden, fmt::format("only one instance of \"{}\" network is allowed", spec.driver));
  if (spec.driver == "overlay")
    throw Error(Errc::forbidden,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this "
                "node to swarm and try again.");
  if (spec.driver == "macvlan" || spec.driver == "ipvlan")
    throw Error(Errc::not_implemented, fmt::format("network driver {} is not supported by this engine", spec.driver));
  throw Error(Errc::not_found, fmt::format("plugin \"{}\" not found", spec.driver));
}

void check_options(const std::map<std::string, std::string>& options, bool internal) {
  for (const auto& [key, value] : options) {
    auto bad = [&](const char* why) {
      return Error(Errc::invalid_argument, fmt::format("failed to parse {} value: {} ({})", key, quote(value), why));
    };
    const bool is_bool = key.ends_with(".enable_icc") || key.ends_with(".enable_ip_masquerade") ||
                         key.ends_with(".inhibit_ipv4") || key.ends_with(".default_bridge");
    const std::string lower = to_lower(value);
    static const std::set<std::string> kBools{"true", "false", "1", "0", "t", "f"};
    if (is_bool && kBools.count(lower) == 0) throw bad("not a boolean");
    if (key == "com.docker.network.driver.mtu") {
      auto mtu = parse_int(value);
      if (!mtu || *mtu < 0 || *mtu > 65535) throw bad("not a number of bytes");
    }
    if (key.ends_with(".host_binding_ipv4") && !value.empty() && !IpAddress::find(value))
      throw bad("not an IP address");
    if (key == "com.docker.network.host_ipv4" || key == "com.docker.network.host_ipv6")
      if (!IpAddress::find(value)) throw bad("not an IP address");
    if (key.find(".gateway_mode_ipv") != std::string::npos && value != "nat" && value != "nat-unprotected" &&
        value != "routed" && value != "isolated")
      throw Error(Errc::invalid_argument, fmt::format("unknown gateway mode {}", value));
    if (key.find(".gateway_mode_ipv") != std::string::npos && value == "isolated" && !internal)
      throw Error(Errc::invalid_argument, "gateway mode 'isolated' can only be used for an internal network");
    if (key == kBridgeName && (value.empty() || value.size() >= IFNAMSIZ ||
                               value.find_first_of("/ \t\n:%") != std::string::npos || value == "." || value == ".."))
      throw Error(Errc::invalid_argument, fmt::format("invalid bridge name: {}", quote(value)));
    if (key == "com.docker.network.container_iface_prefix" &&
        (value.empty() || value.size() > 11 || value.find_first_of("/ \t\n:%") != std::string::npos))
      throw Error(Errc::invalid_argument, fmt::format("invalid interface prefix: {}", quote(value)));
  }
}

// fd<40 bits that belong to this installation>::/48, as RFC 4193 wants it.
AddressPool own_ipv6_pool(const std::string& installation) {
  const std::string digits = installation.substr(0, 10);
  const std::string text =
      fmt::format("fd{}:{}:{}::/48", digits.substr(0, 2), digits.substr(2, 4), digits.substr(6, 4));
  return {Cidr::parse(text), 64};
}

}  // namespace

Task<Networks::Created> Networks::State::create_network(NetworkSpec spec) {
  if (trim(spec.name).empty()) throw Error(Errc::invalid_argument, "invalid name: name is empty");
  if (spec.name == "bridge" || spec.name == "host" || spec.name == "none" || spec.name == "default")
    throw predefined_not_permitted(spec.name);
  check_driver(spec);
  check_options(spec.options, spec.internal);
  db::NetworkRow row;
  row.id = random_id();
  row.name = spec.name;
  row.created_ns = now().time_since_epoch().count();
  row.driver = "bridge";
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
  row.bridge_mac = MacAddress::random().str();
  auto named = spec.options.find(kBridgeName);
  row.bridge = named == spec.options.end() ? "br-" + row.id.substr(0, 12) : named->second;
  validate_ipam(spec.ipam, row.enable_ipv6);

  auto lock = co_await admin.lock("network.create");
  for (const auto& [id, net] : networks) {
    if (net.row.name == row.name) throw network_exists(row.name);
    if (net.row.bridge == row.bridge && !row.bridge.empty())
      throw Error(Errc::forbidden,
                  fmt::format("cannot create network {} ({}): conflicts with network {} ({}): networks "
                              "have same bridge name",
                              row.id, row.bridge, id, net.row.bridge));
  }
  std::vector<std::string> own_bridges;
  for (const auto& [id, net] : networks)
    if (!net.row.bridge.empty()) own_bridges.push_back(net.row.bridge);
  KernelPtr to = kernel;
  struct Facts {
    std::vector<Cidr> occupied;
    bool bridge_exists = false;
  };
  const Facts facts = co_await lanes.net.run([to, own_bridges, bridge = row.bridge, this] {
    const std::string resolv_conf = sys::find_file(options.host_resolv_conf, 1 << 20).value_or("");
    Facts out;
    out.occupied = occupied_subnets(to->route, resolv_conf, own_bridges);
    out.bridge_exists = sys::find_link(to->route, bridge).has_value();
    return out;
  });
  row.bridge_is_ours = !facts.bridge_exists;
  choose_subnets(row, spec, facts.occupied);
  co_await async::shielded(make_network(row));
  co_return Networks::Created{row.id, ""};
}

void Networks::State::choose_subnets(db::NetworkRow& row, const NetworkSpec& spec, const std::vector<Cidr>& occupied) {
  std::vector<Cidr> used = used_subnets();
  for (Family family : {Family::v4, Family::v6}) {
    if (!(family == Family::v4 ? row.enable_ipv4 : row.enable_ipv6)) continue;
    db::NetworkPoolRow pool;
    unsigned size = 0;
    for (const IpamConfig& config : spec.ipam) {
      auto subnet = Cidr::find(config.subnet);
      const bool other_family = subnet ? subnet->address.family() != family : family == Family::v6;
      if (other_family) continue;
      if (!pool.subnet.empty()) throw Error(Errc::forbidden, "bridge driver doesn't support multiple subnets");
      pool = {config.subnet, config.ip_range, config.gateway, config.auxiliary_addresses};
      if (subnet && subnet->address.is_any()) {
        size = subnet->length;  // "any subnet of this size"
        pool.subnet.clear();
      }
    }
    if (pool.subnet.empty()) {
      SubnetPlan plan = plan_of_subnets;
      if (family == Family::v6 && !plan.find(family, used, occupied, size)) {
        std::string installation = row.id;
        for (const auto& [id, net] : networks)
          if (net.row.predefined && net.row.name == "host") installation = id;
        plan = SubnetPlan({own_ipv6_pool(installation)});
      }
      auto found = plan.find(family, used, occupied, size);
      if (!found) {
        std::vector<std::string> holders;
        for (const auto& taken : used) holders.push_back(taken.str());
        throw pools_exhausted(fmt::format(" (networks hold {})", join(holders, ", ")));
      }
      pool.subnet = found->str();
    } else {
      const Cidr wanted = Cidr::parse(pool.subnet);
      for (const Cidr& taken : used)
        if (taken.overlaps(wanted)) throw pool_overlaps();
    }
    const Cidr subnet = Cidr::parse(pool.subnet);
    AddressRange range(subnet, Cidr::find(pool.ip_range).value_or(Cidr{}));
    for (const auto& [name, address] : pool.auxiliary) range.reserve(IpAddress::parse(address));
    if (pool.gateway.empty()) pool.gateway = range.take_any(row.name, row.id).str();
    used.push_back(subnet);
    row.pools.push_back(std::move(pool));
  }
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
    co_await lanes.net.run(
        [to, spec = net.bridge_spec(options.mtu), rules = net.rules(), ipv6 = row.enable_ipv6, this] {
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
  co_await lanes.net.run([to, row, files = name_files] {
    to->firewall.remove_bridge(row.bridge);
    FAILPOINT("network.remove.after_firewall");
    if (row.bridge_is_ours) remove_bridge(to->route, row.bridge);
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
