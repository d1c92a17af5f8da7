#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "async/task_group.hpp"
#include "db/network_rows.hpp"
#include "network/bridge.hpp"
#include "network/files.hpp"
#include "network/firewall.hpp"
#include "network/foreign_rules.hpp"
#include "network/ipam.hpp"
#include "network/names.hpp"
#include "network/networks.hpp"
#include "network/ports.hpp"
#include "network/repair.hpp"
#include "network/sandbox.hpp"
#include "network/vlan.hpp"

/// What Networks holds; only its own .cpp files see this.
namespace gantry::network {

/// Auxiliary addresses with these names are where containers' default routes lead.
inline constexpr const char* kDefaultGateway4 = "DefaultGatewayIPv4";
inline constexpr const char* kDefaultGateway6 = "DefaultGatewayIPv6";

/// The sockets to the kernel. Net lane only.
struct Kernel {
  Kernel(Firewall::Settings settings, ForeignRules::Mode mode);
  sys::NetlinkSocket route;
  Firewall firewall;
  ForeignRules foreign;
  Announcer announcer;
  std::atomic<int> lane_thread = 0;  // who makes our transactions, as the kernel names it in its announcements
};
using KernelPtr = std::shared_ptr<Kernel>;

/// A network and the addresses in it that are taken.
struct Net {
  db::NetworkRow row;
  std::vector<AddressRange> ranges;  // one for each pool, in their order
  bool leaving = false;              // being removed: nobody gets in any more

  bool is_bridge() const { return row.driver == "bridge"; }
  /// Containers have interfaces on one of the host's own.
  bool is_vlan() const { return row.driver == "macvlan" || row.driver == "ipvlan"; }
  /// Nothing leads out of it.
  bool closed() const { return row.internal || is_dummy_parent(row.parent); }
  bool has_endpoints() const { return (is_bridge() || is_vlan()) && !row.config_only; }
  bool is_default_bridge() const { return row.predefined && is_bridge(); }
  std::string option(const std::string& key, std::string fallback = {}) const;
  bool flag(const std::string& key, bool fallback) const;
  /// The first of a family, which is a bridge's only one, or nullptr.
  AddressRange* range(Family family);
  const AddressRange* range(Family family) const;
  /// The one that an address belongs to, or nullptr.
  AddressRange* range_of(const IpAddress& address);
  const AddressRange* range_of(const IpAddress& address) const;
  /// `wanted`, or if it is empty a free one of any range of the family. Throws as AddressRange does.
  IpAddress take(Family family, const std::string& wanted);
  /// The host's address in the subnet, or empty.
  IpAddress gateway(Family family) const;
  /// Where the default route of a container with this address leads: to its subnet's gateway, unless another was
  /// configured.
  IpAddress route(const IpAddress& address) const;
  bool isolated(Family family) const;
  /// Its containers reach each other through the host only, where a link allows it.
  bool isolates_containers() const { return !flag("com.docker.network.bridge.enable_icc", true); }
  /// How often neighbours are told of a new owner of an address, and how long after each other.
  unsigned announcements() const;
  std::chrono::milliseconds announce_every() const;
  Cidr with_length(const IpAddress& address) const;
  unsigned mtu(unsigned fallback) const;
  BridgeRules::Mode mode(Family family) const;
  BridgeSpec bridge_spec(unsigned default_mtu) const;
  BridgeRules rules(bool direct) const;
};

/// A container that has a sandbox.
struct Member {
  db::SandboxRow sandbox;
  std::vector<db::EndpointRow> endpoints;  // in the order of their interfaces
  sys::Path directory;                     // of its files; empty after a restart of the daemon
  bool serves_names = false;               // its shim answers at 127.0.0.11
  ContainerNames names;                    // with the links of each network; the rest of the networks is derived
  Attachment shown;                        // what find_attachment() gives: derived from the above
};

struct Networks::State {
  struct Plan;
  struct Arrival;

  State(Options options, db::Db& db, async::Lanes& lanes, boost::asio::any_io_executor loop, NetworkEventHook on_event);

  // networks.cpp
  Net* find_net(const std::string& name_or_id);
  Net& get_net(const std::string& name_or_id);
  NetworkInfo describe(const Net& net) const;
  void refresh(Member& member);
  void tell(const std::string& action, const Net& net, const std::string& container_id, std::string detail = {});
  std::vector<Cidr> used_subnets() const;

  // networks_attach.cpp
  Task<AttachResult> attach(AttachRequest request);
  Task<void> detach(std::string container_id);
  Task<AttachResult> attach_own(AttachRequest request);
  void announce(const std::string& container_id, const db::EndpointRow& row);
  Task<void> announce_again(std::string container_id, db::EndpointRow row);
  Task<AttachResult> attach_host(AttachRequest request);
  Task<AttachResult> attach_joined(AttachRequest request, std::string donor);
  Task<void> build(const Plan& plan, Files files, sys::Path user_namespace);
  AttachResult enter(Plan plan, const AttachRequest& request);
  void plan_ports_of(Plan& plan, const AttachRequest& request);
  /// Reserves addresses, names and ports in memory; throws without leaving anything reserved.
  Plan plan(const AttachRequest& request);
  db::EndpointRow plan_endpoint(Net& net, const AttachRequest& request, const EndpointSettings& settings,
                                const std::string& interface);
  void release(const db::EndpointRow& row);
  Task<void> take_back(std::string container_id, std::vector<db::EndpointRow> endpoints);
  DefaultRoute default_route(const db::EndpointRow& row, Family family) const;
  InterfaceSpec interface_spec(const db::EndpointRow& row, const EndpointSettings& settings);
  std::vector<PublishRule> publish_rules(const db::EndpointRow& row);
  void choose_gateways(std::vector<db::EndpointRow>& rows);
  std::vector<HostsLine> hosts_lines(const AttachRequest& request, const std::vector<db::EndpointRow>& rows) const;
  ResolvSettings resolv_settings(const AttachRequest& request, const std::vector<db::EndpointRow>& rows) const;
  Files files_for(const AttachRequest& request, const std::vector<db::EndpointRow>& rows) const;
  std::vector<std::string> host_gateways() const;

  // networks_connect.cpp
  Task<Endpoint> connect(std::string network, AttachRequest container, EndpointSettings settings);
  Task<void> disconnect(std::string network, std::string container, bool force);
  Task<void> join_network(Plan one, AttachRequest request);
  Task<void> start_names(db::EndpointRow row, AttachRequest request, std::vector<std::string> links);
  Task<void> leave_network(std::string container_id, db::EndpointRow row);
  Task<void> move_gateways(std::string container_id);
  Task<void> relink(std::string container_id, sys::Path directory, std::vector<HostsLink> links);

  // networks_validate.cpp
  void check_endpoint(const std::string& network, const EndpointSettings& settings);

  // networks_names.cpp
  bool has_names(const db::EndpointRow& row) const;
  std::vector<std::string> named_networks(const std::vector<db::EndpointRow>& rows) const;
  NameTable name_table(const Net& net) const;
  ContainerNames container_names(const Member& member) const;
  void set_name_settings(Member& member, const AttachRequest& request) const;
  void set_links(Member& member, const std::string& network_id, std::vector<std::string> links) const;
  Task<void> write_names(std::vector<std::string> network_ids, std::string container_id);
  Task<void> recover_names();
  Task<void> rename(std::string container_id, std::string name);

  // networks_admin.cpp
  Task<Networks::Created> create_network(NetworkSpec spec);
  Task<void> remove_network(std::string name_or_id);
  void choose_subnets(db::NetworkRow& row, const NetworkSpec& spec, const std::vector<Cidr>& occupied);
  db::NetworkPoolRow choose_pool(const db::NetworkRow& row, Family family, const IpamConfig& config,
                                 std::vector<Cidr>& used, const std::vector<Cidr>& occupied) const;
  Cidr free_subnet(Family family, const std::vector<Cidr>& used, const std::vector<Cidr>& occupied,
                   unsigned size) const;
  void apply_configuration(NetworkSpec& spec);
  db::NetworkRow new_row(const NetworkSpec& spec);
  void check_conflicts(db::NetworkRow& row) const;
  std::string pool_holders(Family family) const;
  BridgeRules rules_of(const Net& net) const { return net.rules(options.allow_direct_routing); }
  Task<void> make_network(db::NetworkRow row);
  Task<void> unmake_network(db::NetworkRow row);

  // networks_recover.cpp
  Task<RecoverReport> recover(std::set<std::string> running);
  struct HostFacts {
    std::vector<Cidr> occupied;
    std::vector<Cidr> on_bridge;  // the addresses of the default bridge's interface
    std::string bridge_mac;       // empty: there is no such interface yet
  };
  Task<void> make_predefined(HostFacts facts);
  db::NetworkPoolRow default_bridge_pool(Family family, const db::NetworkRow& before, const std::vector<Cidr>& occupied,
                                         const std::vector<Cidr>& on_bridge) const;
  void enter_network(const db::NetworkRow& row);

  // networks_heal.cpp
  /// Everything that heal() compares with the kernel.
  RepairJob wanted() const;
  std::set<std::string> paused_objects();
  void tell_repair(const Repair& repair);
  std::vector<std::string> note_repairs(std::vector<Repair> repaired);
  Task<std::vector<std::string>> look_at_foreign_rules();
  Task<void> poll_foreign_rules();
  bool is_damage(const sys::LinkInfo& link, bool removed) const;
  Task<std::vector<std::string>> heal();
  Task<void> watch_links();
  Task<void> watch_firewall();
  Task<void> audit();
  Task<void> heal_and_tell();

  Options options;
  db::Db& db;
  async::Lanes& lanes;
  boost::asio::any_io_executor loop;
  NetworkEventHook on_event;
  SubnetPlan plan_of_subnets;
  PortAllocator ports;
  NameFiles name_files;
  KernelPtr kernel;
  std::map<std::string, Net> networks;    // by id
  std::map<std::string, Member> members;  // by container id
  std::vector<Cidr> former_addresses;     // of the default bridge, before the options changed
  std::multiset<std::string> arriving;    // networks that a container is being connected to
  async::Mutex admin;                     // create and remove, one at a time
  async::Mutex healing;
  std::uint64_t repairs = 0;                                                              // since the daemon started
  std::map<std::string, std::deque<std::chrono::steady_clock::time_point>> repair_times;  // by object
  std::set<std::string> told_problems;
  std::vector<std::string> foreign_warnings;  // other programs' rules that are in our way
  bool poll_foreign = false;
  std::unique_ptr<async::TaskGroup> watchers;
};

/// Keeps networks from being removed while a container is on its way in.
struct Networks::State::Arrival {
  Arrival(State& owner, const std::vector<db::EndpointRow>& endpoints) : state(owner) {
    for (const auto& row : endpoints) ids.push_back(row.network_id);
    state.arriving.insert(ids.begin(), ids.end());
  }
  ~Arrival() {
    for (const auto& id : ids) state.arriving.erase(state.arriving.find(id));
  }
  Arrival(const Arrival&) = delete;
  Arrival& operator=(const Arrival&) = delete;
  State& state;
  std::vector<std::string> ids;
};

/// What attach() reserved. Gives it all back unless kept.
struct Networks::State::Plan {
  explicit Plan(State* owner) : state(owner) {}
  Plan(Plan&& other) noexcept;
  Plan& operator=(Plan&&) = delete;
  ~Plan();
  void keep() { state = nullptr; }

  State* state;
  db::SandboxRow sandbox;
  std::vector<db::EndpointRow> endpoints;
  std::vector<EndpointSettings> settings;  // of each endpoint
  std::vector<PublishedSocket> sockets;
};

}  // namespace gantry::network
