#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <boost/describe/class.hpp>

#include "db/sqlite.hpp"

namespace gantry::db {

struct NetworkPoolRow {
  std::string subnet;
  std::string ip_range;
  std::string gateway;  // reserved for the host's side even if none is configured on it
  std::map<std::string, std::string> auxiliary;
};
BOOST_DESCRIBE_STRUCT(NetworkPoolRow, (), (subnet, ip_range, gateway, auxiliary))

struct NetworkRow {
  std::string id;
  std::string name;  // unique
  std::int64_t created_ns = 0;
  std::string driver;  // bridge, host, null, macvlan, ipvlan
  bool predefined = false;
  bool enable_ipv4 = true;
  bool enable_ipv6 = false;
  bool internal = false;
  bool attachable = false;
  std::string ipam_driver = "default";
  std::map<std::string, std::string> ipam_options;
  std::vector<NetworkPoolRow> pools;
  std::map<std::string, std::string> options;
  std::map<std::string, std::string> labels;
  std::string bridge;          // the interface; empty for host and null
  std::string bridge_mac;      // kept, so that a bridge made anew has the old one's address
  bool bridge_is_ours = true;  // false: it was there before us and stays when the network goes
  std::string parent;          // macvlan, ipvlan: the host's interface that the containers' are on
  bool parent_is_ours = false;
  bool config_only = false;  // never connected to: others take their settings from it
  std::string config_from;   // the name of that network
};
BOOST_DESCRIBE_STRUCT(NetworkRow, (),
                      (id, name, created_ns, driver, predefined, enable_ipv4, enable_ipv6, internal, attachable,
                       ipam_driver, ipam_options, pools, options, labels, bridge, bridge_mac, bridge_is_ours, parent,
                       parent_is_ours, config_only, config_from))

struct PublishedPortRow {
  std::string endpoint_id;
  std::string proto;
  std::string host_ip;
  int host_port = 0;
  int container_port = 0;
};

/// A legacy link of an endpoint in the default network to another container.
struct LinkRow {
  std::string address;
  std::vector<std::string> names;  // as they stand in /etc/hosts
  std::vector<std::string> ports;  // "80/tcp": open for this container only, where icc is off
  bool operator==(const LinkRow&) const = default;
};
BOOST_DESCRIBE_STRUCT(LinkRow, (), (address, names, ports))

/// A container's address in one network, from before anything of it exists until after everything of it is gone.
struct EndpointRow {
  std::string id;
  std::string network_id;
  std::string container_id;
  std::string address;   // unique in its network; empty: none
  std::string address6;  // the same
  std::string mac;
  std::string host_interface;
  std::string interface;
  std::vector<std::string> aliases;
  std::vector<std::string> dns_names;
  int gw_priority = 0;
  bool ipv4_gateway = false;  // the container's default route goes this way
  bool ipv6_gateway = false;
  std::vector<LinkRow> links;
  std::vector<PublishedPortRow> ports;
};
BOOST_DESCRIBE_STRUCT(EndpointRow, (),
                      (id, network_id, container_id, address, address6, mac, host_interface, interface, aliases,
                       dns_names, gw_priority, ipv4_gateway, ipv6_gateway, links))

/// A container's network namespace.
struct SandboxRow {
  std::string container_id;
  std::string container_name;
  std::string kind;                  // own, host, joined
  std::string donor;                 // joined: the other container
  std::vector<std::string> exposed;  // "80/tcp"
};
BOOST_DESCRIBE_STRUCT(SandboxRow, (), (container_id, container_name, kind, donor, exposed))

/// Throws conflict if the id or name is taken.
void insert_network(Db& db, const NetworkRow& row);
void update_network(Db& db, const NetworkRow& row);
/// Throws conflict while it has endpoints.
void remove_network(Db& db, const std::string& id);
std::vector<NetworkRow> load_networks(Db& db);

/// Inserts all of it, or throws conflict (an id, address or port is taken) and leaves nothing. One transaction.
void insert_sandbox(Db& db, const SandboxRow& sandbox, const std::vector<EndpointRow>& endpoints);
/// Replaces what is stored of a sandbox itself.
void update_sandbox(Db& db, const SandboxRow& sandbox);
/// One transaction: an endpoint of a container that runs, with its ports.
void insert_endpoint(Db& db, const EndpointRow& row);
/// Replaces what is stored of these endpoints, ports included. One transaction.
void update_endpoints(Db& db, const std::vector<EndpointRow>& rows);
void remove_endpoint(Db& db, const std::string& id);
/// The sandbox with its endpoints and ports.
void remove_sandbox(Db& db, const std::string& container_id);
std::vector<SandboxRow> load_sandboxes(Db& db);
std::vector<EndpointRow> load_endpoints(Db& db);

}  // namespace gantry::db
