#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/time.hpp"
#include "network/address.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"

/// The plain data that goes in and out of `Networks`. Texts are as the Engine API spells them ("80/tcp", "0.0.0.0").
namespace gantry::network {

struct AddressPool {
  Cidr base;
  unsigned size = 0;  // prefix length of the subnets cut from it
};

/// What the daemon's configuration decides. Two engines can live side by side if the names and directories differ.
struct Options {
  std::string bridge_name = "gantry0";  // interface of the default bridge; "none": there is no default bridge
  std::string table_name = "gantry";    // nftables: ip and ip6 <name>, and <name>-user for the administrator
  std::string bip;                      // "172.17.0.1/16": the default bridge's address; empty: chosen
  std::string fixed_cidr;               // part of the default bridge's subnet that containers get addresses from
  bool ipv6 = false;                    // the default bridge has IPv6, too
  std::string bip6;
  std::string fixed_cidr_v6;
  std::string default_gateway;  // of the default bridge's containers, instead of the bridge itself
  std::string default_gateway_v6;
  std::map<std::string, std::map<std::string, std::string>> default_network_opts;  // driver -> option -> value
  std::vector<AddressPool> address_pools;                                          // empty: default_address_pools()
  unsigned mtu = 1500;
  bool icc = true;
  bool ip_masq = true;
  bool ip_forward = true;           // switch the host's IPv4 forwarding on if it is off
  bool ip_forward_no_drop = false;  // having switched it on, do not drop what is forwarded between other interfaces
  bool iptables = true;             // false: no packet filter and no address translation for IPv4
  bool ip6tables = true;
  bool allow_direct_routing = false;  // published ports may be reached at containers' own addresses from elsewhere
  std::uint32_t accept_mark = 0;      // forwarded packets with this mark pass; mask 0: there is no such mark
  std::uint32_t accept_mask = 0;
  std::string firewall_compat = "detect";  // other tables that drop what is forwarded: detect, insert, none
  bool relay = true;            // serve loopback and IPv6 host addresses by the shim's relay (--userland-proxy)
  std::string default_bind_ip;  // --ip; empty or 0.0.0.0: 0.0.0.0 and [::]
  bool embedded_dns = false;    // the shim answers at 127.0.0.11 in user-defined networks
  std::vector<std::string> dns;
  std::vector<std::string> dns_search;
  std::vector<std::string> dns_options;
  std::vector<std::string> host_gateway_ips;  // what "host-gateway" stands for; empty: the default bridge's gateway
  sys::Path netns_directory = "/run/gantry/netns";
  sys::Path names_directory = "/run/gantry/names";  // read by the shims' name servers
  sys::Path run_directory = "/run/gantry";          // must not survive a reboot: holds what was changed on this boot
  sys::Path host_hosts = "/etc/hosts";
  sys::Path host_resolv_conf = "/etc/resolv.conf";
};

struct PortBinding {
  std::string host_ip;
  std::string host_port;
  auto operator<=>(const PortBinding&) const = default;
};
using PortMap = std::map<std::string, std::vector<PortBinding>>;  // key "80/tcp"; no bindings: only exposed

/// One network's settings of a container, as the client gave them.
struct EndpointSettings {
  std::string ipv4_address;
  std::string ipv6_address;
  std::vector<std::string> link_local_ips;
  std::vector<std::string> links;  // "container:alias"
  std::vector<std::string> aliases;
  std::string mac_address;
  std::map<std::string, std::string> driver_opts;
  int gw_priority = 0;
};

/// A legacy link of the default bridge, resolved by the engine: a line of /etc/hosts, and the ports that it opens where
/// the containers may not talk to each other otherwise.
struct HostsLink {
  std::string address;
  std::vector<std::string> names;
  std::vector<std::string> ports = {};  // "80/tcp"
  bool operator==(const HostsLink&) const = default;
};

struct AttachRequest {
  std::string container_id;
  std::string name;  // without the slash
  std::string hostname;
  std::string domainname;
  /// "bridge" (also "" and "default"), "host", "none", "container:<full id>", or a network's name or id.
  std::string network_mode;
  bool without_own = false;                          // it has left its mode's network
  std::map<std::string, EndpointSettings> networks;  // key: network name or id; the mode's own entry may be missing
  std::vector<std::string> exposed_ports;            // "80/tcp"
  PortMap port_bindings;
  bool publish_all = false;
  std::vector<std::string> dns;
  std::vector<std::string> dns_search;
  std::vector<std::string> dns_options;
  std::vector<std::string> extra_hosts;  // "name:address" or "name:host-gateway"
  std::vector<HostsLink> links;
  sys::Path container_directory;  // hosts, hostname and resolv.conf are written here (not for "container:")
  sys::Path user_namespace;       // whose the network namespace is; empty: the host's
};

/// A container's place in one network while it runs.
struct Endpoint {
  std::string id;
  std::string network_id;
  std::string network_name;
  std::string mac_address;
  std::string ip_address;
  unsigned ip_prefix_length = 0;
  std::string gateway;
  std::string ipv6_address;
  unsigned ipv6_prefix_length = 0;
  std::string ipv6_gateway;
  std::vector<std::string> aliases;
  std::vector<std::string> dns_names;  // user-defined networks: every name the others find it under
  std::string interface_name;          // inside: "eth0"
  std::string host_interface;          // outside: "veth1a2b3c4"
  int gw_priority = 0;
};

/// Where a container's network lives.
enum class SandboxKind { own, host, joined };

/// What inspect shows of a running container's network.
struct Attachment {
  std::string container_id;
  std::string sandbox_id;
  SandboxKind kind = SandboxKind::own;
  std::string netns_path;  // own: for the OCI spec and SandboxKey; joined: the donor's; host: empty
  std::string donor_id;    // joined: the container whose namespace it is
  std::string names_path;  // what its name server at 127.0.0.11 reads; empty: it has none
  std::vector<Endpoint> endpoints;
  PortMap ports;
  std::vector<std::string> port_targets;  // the container's addresses that published ports lead to
};

/// One published host address. The descriptor holds the port against the rest of the host; the shim keeps it for the
/// container's life, and serves from it what the kernel's address translation does not cover (loopback, and IPv6 host
/// addresses of IPv4 containers).
struct PublishedSocket {
  std::string proto;  // "tcp" or "udp"
  std::string host_ip;
  std::uint16_t host_port = 0;
  std::string container_ip;
  std::uint16_t container_port = 0;
  bool relay = false;  // false: only hold it
  sys::Fd socket;      // tcp: listening, with a filter that drops everything until the relay takes over; udp: bound
};

struct AttachResult {
  Attachment attachment;
  std::vector<PublishedSocket> sockets;
  std::vector<std::string> warnings;
};

struct IpamConfig {
  std::string subnet;
  std::string ip_range;
  std::string gateway;
  std::map<std::string, std::string> auxiliary_addresses;
};

struct NetworkSpec {
  std::string name;
  std::string driver = "bridge";
  std::optional<bool> enable_ipv4;
  std::optional<bool> enable_ipv6;
  bool internal = false;
  bool attachable = false;
  std::string ipam_driver = "default";
  std::map<std::string, std::string> ipam_options;
  std::vector<IpamConfig> ipam;
  std::map<std::string, std::string> options;
  std::map<std::string, std::string> labels;
  bool config_only = false;  // never connected to: others take their settings from it
  std::string config_from;   // name or id of such a network
};

struct NetworkMember {
  std::string container_id;
  std::string name;
  std::string endpoint_id;
  std::string mac_address;
  std::string ipv4_address;  // "172.17.0.2/16"
  std::string ipv6_address;
};

/// A network as `network inspect` shows it.
struct NetworkInfo {
  std::string id;
  std::string name;
  Timestamp created{};
  std::string scope = "local";
  std::string driver;
  bool enable_ipv4 = true;
  bool enable_ipv6 = false;
  bool internal = false;
  bool attachable = false;
  bool predefined = false;
  std::string ipam_driver = "default";
  std::map<std::string, std::string> ipam_options;
  std::vector<IpamConfig> ipam;
  std::map<std::string, std::string> options;
  std::map<std::string, std::string> labels;
  bool config_only = false;
  std::string config_from;             // a name
  std::vector<NetworkMember> members;  // running containers only
};

/// Something to publish on the event bus. `action`: create, destroy, connect, disconnect, heal.
struct NetworkEvent {
  std::string action;
  std::string network_id;
  std::string network_name;
  std::string driver;
  std::string container_id;  // connect, disconnect
  std::string detail;        // heal: what was put right
};
using NetworkEventHook = std::function<void(const NetworkEvent&)>;

struct RecoverReport {
  std::vector<std::string> repaired;  // one sentence each
  std::vector<std::string> removed;
  std::vector<std::string> problems;  // what could not be put right
};

}  // namespace gantry::network
