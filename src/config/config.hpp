#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the daemon was told. A plain value: nothing here reads files, the environment or the host.
/// Which key and flag sets which member, with its help text and whether it has an effect, is in `options.cpp`.
namespace gantry::config {

/// Networks of /`size` are cut out of `base` (CIDR), in the order of the list.
struct AddressPool {
  std::string base;
  int size = 0;
  bool operator==(const AddressPool&) const = default;
};

/// -1 stands for "unlimited".
struct Ulimit {
  std::string name;
  std::int64_t soft = 0;
  std::int64_t hard = 0;
  bool operator==(const Ulimit&) const = default;
};

/// An OCI runtime. `type` is Docker's `runtimeType` (a containerd shim's name); `path` may be empty then.
struct Runtime {
  std::string path;
  std::vector<std::string> args;
  std::string type;
  bool operator==(const Runtime&) const = default;
};

/// The `builder` object of daemon.json.
struct BuilderConfig {
  bool gc_enabled = true;
  std::int64_t gc_reserved_bytes = 0;  // 0: a tenth of the disk
  std::int64_t gc_max_used_bytes = 0;  // 0: four fifths of the disk
  std::int64_t gc_min_free_bytes = 0;  // 0: a fifth of the disk
  bool allow_network_host = true;
  bool allow_security_insecure = false;
  bool allow_device = true;
  std::int64_t history_entries = 50;
  std::int64_t memory_bytes = std::int64_t{1} << 30;  // of the build worker itself, not of what it runs; 0: no bound
  std::int64_t idle_seconds = 30;  // a build worker without anything to do ends after this
  bool operator==(const BuilderConfig&) const = default;
};

/// A log file of the drivers json-file and local is rotated at this size, and this many are kept, unless the container
/// or `log-opts` says otherwise (`max-size` of -1 means no limit): at most 100 MB of log per container.
inline constexpr std::string_view kDefaultLogMaxSize = "20m";
inline constexpr std::string_view kDefaultLogMaxFile = "5";

struct Config {
  // Where things are.
  std::string data_root = "/var/lib/gantry";
  std::string exec_root = "/run/gantry";
  std::string pidfile = "/run/gantry.pid";  // empty: none

  // The API.
  std::vector<std::string> hosts;  // normalised by `load`; never empty afterwards
  std::string group = "docker";    // owner of unix sockets; a missing group is a warning unless it was asked for
  std::optional<bool> tls;         // nullopt: not said, as opposed to an explicit false
  std::optional<bool> tlsverify;
  std::string tlscacert;  // empty: ~/.docker/ca.pem when needed
  std::string tlscert;
  std::string tlskey;
  std::string min_api_version = "1.24";
  std::string metrics_addr;
  std::vector<std::string> labels;
  bool experimental = false;
  std::map<std::string, bool> features;

  // The daemon's own log.
  bool debug = false;
  std::string log_level = "info";   // debug, info, warn, error or fatal
  std::string log_format = "text";  // text or json
  bool raw_logs = false;

  // Containers.
  std::map<std::string, Runtime> runtimes;  // beside the built-in "runc"
  std::string default_runtime = "runc";
  std::string cgroup_parent;
  std::vector<std::string> exec_opts;  // "native.cgroupdriver=cgroupfs"
  std::string default_cgroupns_mode;   // private or host; empty: private on a cgroup v2 host, host otherwise
  std::string default_ipc_mode = "private";
  std::int64_t default_shm_size = 64 << 20;  // bytes
  std::int64_t default_stop_timeout = 10;    // seconds
  std::int64_t shutdown_timeout = 15;        // seconds; negative: wait for ever
  std::map<std::string, Ulimit> default_ulimits;
  bool init = false;
  std::string init_path;
  std::string default_init = "docker-init";
  bool no_new_privileges = false;
  std::string seccomp_profile = "builtin";  // builtin, unconfined or a path
  bool selinux_enabled = false;
  std::string userns_remap;
  bool live_restore = false;        // containers always outlive the daemon here; only `info` tells the difference
  std::int64_t cpu_rt_period = 0;   // microseconds
  std::int64_t cpu_rt_runtime = 0;  // microseconds
  std::vector<std::string> cdi_spec_dirs;

  // Container logs.
  std::string log_driver = "json-file";
  std::map<std::string, std::string> log_opts;  // see kDefaultLogMaxSize for what holds without any

  // Storage.
  std::string storage_driver;  // empty: overlay2
  std::vector<std::string> storage_opts;

  // Images and registries.
  std::vector<std::string> insecure_registries;  // host[:port] or CIDR; loopback is always included by the client
  std::vector<std::string> registry_mirrors;     // with scheme, without trailing slash
  std::int64_t max_concurrent_downloads = 3;
  std::int64_t max_concurrent_uploads = 5;
  std::int64_t max_download_attempts = 5;
  std::string http_proxy;  // empty: what the environment says
  std::string https_proxy;
  std::string no_proxy;
  std::int64_t image_keep_free = 0;  // bytes of the data root's file system; 0: no image is removed to make room
  BuilderConfig builder;

  // Networks.
  std::string bridge;  // name of the default bridge; empty: kDefaultBridge; "none": no default network
  std::string bip;     // CIDR: address and size of the default bridge
  std::string bip6;
  std::string fixed_cidr;
  std::string fixed_cidr_v6;
  std::string default_gateway;
  std::string default_gateway_v6;
  std::vector<AddressPool> default_address_pools;                                  // empty: the built-in pools
  std::map<std::string, std::map<std::string, std::string>> default_network_opts;  // driver -> option -> value
  std::vector<std::string> dns;
  std::vector<std::string> dns_opts;
  std::vector<std::string> dns_search;
  std::string resolv_conf;                    // empty: /etc/resolv.conf
  std::vector<std::string> host_gateway_ips;  // what "host-gateway" in --add-host stands for; empty: the bridge's
  std::string ip = "0.0.0.0";                 // host address of published ports that name none
  std::int64_t mtu = 1500;
  bool icc = true;
  bool ip_forward = true;
  bool ip_forward_no_drop = false;
  bool ip_masq = true;
  bool iptables = true;  // false: no packet filter or address translation for IPv4
  bool ip6tables = true;
  bool ipv6 = false;
  bool allow_direct_routing = false;
  std::string bridge_accept_fwmark;
  std::string firewall_backend;  // empty or nftables
  std::string firewall_compat = "detect";  // what is done about other tables that drop what is forwarded
  bool userland_proxy = true;    // reach published ports over loopback (the shim relays)

  /// What holds without native.cgroupdriver: systemd where it manages the whole machine, as in Docker. Set by `load`.
  bool systemd_cgroups_by_default = false;
  /// systemd makes the containers' cgroups.
  bool systemd_cgroups() const {
    for (const std::string& option : exec_opts)
      if (option.starts_with("native.cgroupdriver=")) return option == "native.cgroupdriver=systemd";
    return systemd_cgroups_by_default;
  }

  bool operator==(const Config&) const = default;
};

/// The bridge of the network named "bridge" when nothing else is asked for. Not docker0: Docker may run beside us.
inline constexpr std::string_view kDefaultBridge = "gantry0";
inline constexpr std::string_view kDefaultHost = "unix:///run/gantry.sock";
inline constexpr std::string_view kDefaultConfigFile = "/etc/gantry/daemon.json";

}  // namespace gantry::config
