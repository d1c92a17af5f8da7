#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/log_config.hpp"
#include "engine/settings.hpp"
#include "runtime/capabilities.hpp"
#include "runtime/devices.hpp"
#include "runtime/limits.hpp"
#include "runtime/seccomp.hpp"
#include "runtime/security_opts.hpp"

namespace gantry::engine {
namespace {

using model::ContainerConfig;
using model::HostConfig;

[[noreturn]] void invalid(std::string text) { throw Error(Errc::invalid_argument, std::move(text)); }

bool is_container_mode(const std::string& mode) { return mode == "container" || mode.starts_with("container:"); }

template <class List>
bool has_any(const List& list) {
  return list && !list->empty();
}

void validate_network_mode(const ContainerConfig& config, const HostConfig& host) {
  const std::string& mode = host.NetworkMode;
  const bool joins = is_container_mode(mode);
  if (joins && joined_container(mode).empty())
    invalid("invalid network mode: invalid container format container:<name|id>");
  const auto conflict = [](std::string_view what) { invalid(fmt::format("conflicting options: {}", what)); };
  if (joins) {
    if (!config.Hostname.empty()) conflict("hostname and the network mode");
    if (has_any(host.Links))
      conflict("container type network can't be used with links. This would result in undefined behavior");
    if (has_any(host.Dns)) conflict("dns and the network mode");
    if (has_any(host.ExtraHosts)) conflict("custom host-to-IP mapping and the network mode");
    if (has_any(host.PortBindings) || host.PublishAllPorts)
      conflict("port publishing and the container type network mode");
    if (has_any(config.ExposedPorts)) conflict("port exposing and the container type network mode");
  }
  if (mode == "host" && has_any(host.Links))
    conflict("host type networking can't be used with links. This would result in undefined behavior");
  if (host.UTSMode == "host" && !config.Hostname.empty() && mode != "host") conflict("hostname and the UTS mode");
}

void validate_modes(const HostConfig& host) {
  const auto one_of = [](std::string_view field, const std::string& value,
                         std::initializer_list<std::string_view> known, bool may_join) {
    if (may_join && value.starts_with("container:") && value.size() > 10) return;
    if (std::find(known.begin(), known.end(), value) == known.end())
      invalid(fmt::format("invalid {}: {}", field, value));
  };
  one_of("IPC mode", host.IpcMode, {"", "none", "private", "shareable", "host"}, true);
  one_of("PID mode", host.PidMode, {"", "host"}, true);
  one_of("UTS mode", host.UTSMode, {"", "host"}, false);
  one_of("userns mode", host.UsernsMode, {"", "host"}, false);
  one_of("cgroup namespace mode", host.CgroupnsMode, {"", "private", "host"}, false);
  if (!host.Isolation.empty() && host.Isolation != "default")
    invalid(fmt::format("invalid isolation ({}): linux only supports 'default'", host.Isolation));
}

/// What root of a user namespace of its own cannot have.
void validate_user_namespace(const HostConfig& host, const config::Config& daemon) {
  if (daemon.userns_remap.empty() || host.UsernsMode == "host") return;
  if (host.Privileged)
    invalid(
        "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when "
        "running privileged mode");
  if (host.NetworkMode == "host") invalid("cannot share the host's network namespace when user namespaces are enabled");
  if (host.PidMode == "host") invalid("cannot share the host PID namespace when user namespaces are enabled");
}

void validate_security(HostConfig& host, const runtime::HostFacts& facts) {
  const auto words = [](const auto& list) { return list ? *list : std::vector<std::string>{}; };
  runtime::CapabilityRequest request;
  request.add = runtime::normalize_capabilities(words(host.CapAdd), "CapAdd");
  request.drop = runtime::normalize_capabilities(words(host.CapDrop), "CapDrop");
  request.privileged = host.Privileged;
  (void)runtime::resolve_capabilities(request, facts.own_capabilities);
  if (host.CapAdd) host.CapAdd = request.add;
  if (host.CapDrop) host.CapDrop = request.drop;
  const auto security = runtime::parse_security_opts(words(host.SecurityOpt), facts);
  if (security.seccomp == runtime::SecurityOptions::Seccomp::custom)
    runtime::validate_seccomp_profile(security.seccomp_profile, facts);
  if (host.MaskedPaths) runtime::validate_path_list(*host.MaskedPaths, "MaskedPaths");
  if (host.ReadonlyPaths) runtime::validate_path_list(*host.ReadonlyPaths, "ReadonlyPaths");
  if (host.Privileged && !host.MaskedPaths) host.MaskedPaths = std::vector<std::string>{};
  if (host.Privileged && !host.ReadonlyPaths) host.ReadonlyPaths = std::vector<std::string>{};
  if (!host.MaskedPaths) host.MaskedPaths = runtime::default_masked_paths(facts);
  if (!host.ReadonlyPaths) host.ReadonlyPaths = runtime::default_readonly_paths();
}

void validate_devices(const HostConfig& host) {
  if (host.Devices)
    for (const model::DeviceMapping& device : *host.Devices)
      runtime::validate_device_request({device.PathOnHost, device.PathInContainer, device.CgroupPermissions});
  if (host.DeviceCgroupRules)
    for (const std::string& rule : *host.DeviceCgroupRules) (void)runtime::parse_device_rule(rule);
}

void validate_runtime_name(HostConfig& host, const config::Config& daemon) {
  if (!host.Runtime || host.Runtime->empty()) host.Runtime = daemon.default_runtime;
  const std::string& name = *host.Runtime;
  if (name != "runc" && name != "io.containerd.runc.v2" && !daemon.runtimes.contains(name))
    invalid("unknown or invalid runtime name: " + name);
}

void fill_defaults(HostConfig& host, const config::Config& daemon, const runtime::HostFacts& facts) {
  if (host.NetworkMode.empty() || host.NetworkMode == "default") host.NetworkMode = "bridge";
  if (host.ShmSize == 0) host.ShmSize = daemon.default_shm_size;
  if (host.IpcMode.empty()) host.IpcMode = daemon.default_ipc_mode;
  if (host.CgroupnsMode.empty())
    host.CgroupnsMode = host.Privileged && facts.cgroup.mode != sys::CgroupMode::v2 ? "host"
                        : !daemon.default_cgroupns_mode.empty()                     ? daemon.default_cgroupns_mode
                        : facts.cgroup.mode == sys::CgroupMode::v2                  ? "private"
                                                                                    : "host";
  if (!host.OomKillDisable && facts.oom_kill_disable) host.OomKillDisable = false;
  if (!host.Dns) host.Dns.emplace();
  if (!host.DnsOptions) host.DnsOptions.emplace();
  if (!host.DnsSearch) host.DnsSearch.emplace();
  if (!host.PortBindings) host.PortBindings.emplace();
  host.ConsoleSize.resize(2, 0);
}

}  // namespace

std::string joined_container(const std::string& mode) {
  return mode.starts_with("container:") ? mode.substr(10) : std::string();
}

void validate_restart_policy(model::RestartPolicy& policy, bool auto_remove) {
  if (policy.Name.empty()) policy.Name = "no";
  const bool known =
      policy.Name == "no" || policy.Name == "always" || policy.Name == "unless-stopped" || policy.Name == "on-failure";
  if (!known)
    invalid(
        fmt::format("invalid restart policy: unknown policy '{}'; use one of 'no', 'always', 'on-failure', or "
                    "'unless-stopped'",
                    policy.Name));
  if (policy.MaximumRetryCount < 0) invalid("invalid restart policy: maximum retry count cannot be negative");
  if (policy.MaximumRetryCount != 0 && policy.Name != "on-failure")
    invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'");
  if (auto_remove && policy.Name != "no") invalid("can't create 'AutoRemove' container with restart policy");
}

std::vector<std::string> validate_host_config(const ContainerConfig& config, HostConfig& host,
                                              const config::Config& daemon, const runtime::HostFacts& facts) {
  fill_defaults(host, daemon, facts);
  validate_modes(host);
  validate_network_mode(config, host);
  validate_user_namespace(host, daemon);
  validate_restart_policy(host.RestartPolicy, host.AutoRemove);
  complete_log_config(host.LogConfig, daemon);
  validate_security(host, facts);
  validate_devices(host);
  validate_runtime_name(host, daemon);
  runtime::validate_shm_size(host.ShmSize);
  if (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000)
    invalid(fmt::format("Invalid value {}, range for oom score adj is [-1000, 1000]", host.OomScoreAdj));
  runtime::validate_ulimits(to_runtime_ulimits(host));
  runtime::validate_cgroup_parent(host.CgroupParent, daemon.systemd_cgroups());
  if (host.Annotations && host.Annotations->contains(""))
    invalid("invalid Annotations: the empty string is not permitted as an annotation key");
  if (host.Sysctls) {
    runtime::SysctlScope scope;
    scope.private_net = host.NetworkMode != "host";
    scope.private_ipc = host.IpcMode != "host" && !host.IpcMode.starts_with("container:");
    scope.private_uts = host.UTSMode != "host";
    runtime::validate_sysctls(*host.Sysctls, scope);
  }
  if (host.StorageOpt && !host.StorageOpt->empty())
    invalid("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
  runtime::Resources resources = to_runtime_resources(host);
  std::vector<std::string> warnings = runtime::validate_resources(resources, facts);
  from_runtime_resources(resources, host);
  if (host.NetworkMode == "host" && has_any(host.PortBindings))
    warnings.push_back("Published ports are discarded when using host network mode");
  return warnings;
}

runtime::Resources to_runtime_resources(const model::Resources& from) {
  const auto devices = [](const auto& list, auto value) {
    std::vector<runtime::BlockDeviceLimit> out;
    if (list)
      for (const auto& item : *list) out.push_back({item.Path, value(item), 0, 0});
    return out;
  };
  const auto rate = [](const model::ThrottleDevice& device) { return device.Rate; };
  runtime::Resources to;
  to.memory = from.Memory;
  to.memory_swap = from.MemorySwap;
  to.memory_reservation = from.MemoryReservation;
  to.memory_swappiness = from.MemorySwappiness;
  to.oom_kill_disable = from.OomKillDisable;
  to.nano_cpus = from.NanoCpus;
  to.cpu_shares = from.CpuShares;
  to.cpu_period = from.CpuPeriod;
  to.cpu_quota = from.CpuQuota;
  to.cpu_realtime_period = from.CpuRealtimePeriod;
  to.cpu_realtime_runtime = from.CpuRealtimeRuntime;
  to.cpuset_cpus = from.CpusetCpus;
  to.cpuset_mems = from.CpusetMems;
  to.pids_limit = from.PidsLimit;
  to.blkio_weight = from.BlkioWeight;
  to.blkio_weight_device =
      devices(from.BlkioWeightDevice, [](const model::WeightDevice& device) { return device.Weight; });
  to.blkio_read_bps = devices(from.BlkioDeviceReadBps, rate);
  to.blkio_write_bps = devices(from.BlkioDeviceWriteBps, rate);
  to.blkio_read_iops = devices(from.BlkioDeviceReadIOps, rate);
  to.blkio_write_iops = devices(from.BlkioDeviceWriteIOps, rate);
  return to;
}

void from_runtime_resources(const runtime::Resources& from, model::Resources& into) {
  into.Memory = from.memory;
  into.MemorySwap = from.memory_swap;
  into.MemoryReservation = from.memory_reservation;
  into.MemorySwappiness = from.memory_swappiness;
  into.OomKillDisable = from.oom_kill_disable;
  into.NanoCpus = from.nano_cpus;
  into.CpuShares = from.cpu_shares;
  into.CpuPeriod = from.cpu_period;
  into.CpuQuota = from.cpu_quota;
  into.CpuRealtimePeriod = from.cpu_realtime_period;
  into.CpuRealtimeRuntime = from.cpu_realtime_runtime;
  into.CpusetCpus = from.cpuset_cpus;
  into.CpusetMems = from.cpuset_mems;
  into.PidsLimit = from.pids_limit;
  into.BlkioWeight = from.blkio_weight;
  // A list that was not given stays null.
  const auto put = [](auto& list, const std::vector<runtime::BlockDeviceLimit>& limits, auto make) {
    if (!list && limits.empty()) return;
    list.emplace();
    for (const runtime::BlockDeviceLimit& limit : limits) list->push_back(make(limit));
  };
  const auto rate = [](const runtime::BlockDeviceLimit& limit) {
    return model::ThrottleDevice{limit.path, limit.value};
  };
  put(into.BlkioWeightDevice, from.blkio_weight_device, [](const runtime::BlockDeviceLimit& limit) {
    return model::WeightDevice{limit.path, static_cast<std::uint16_t>(limit.value)};
  });
  put(into.BlkioDeviceReadBps, from.blkio_read_bps, rate);
  put(into.BlkioDeviceWriteBps, from.blkio_write_bps, rate);
  put(into.BlkioDeviceReadIOps, from.blkio_read_iops, rate);
  put(into.BlkioDeviceWriteIOps, from.blkio_write_iops, rate);
}

std::vector<runtime::Ulimit> to_runtime_ulimits(const model::Resources& resources) {
  std::vector<runtime::Ulimit> out;
  if (resources.Ulimits)
    for (const model::Ulimit& limit : *resources.Ulimits) out.push_back({limit.Name, limit.Soft, limit.Hard});
  return out;
}

volume::VolumeUse volume_use(const volume::MountPoint& mount) {
  return {mount.rw, mount.destination, mount.propagation, true};
}

network::EndpointSettings to_network_settings(const model::EndpointSettings& from) {
  network::EndpointSettings to;
  if (from.IPAMConfig) {
    to.ipv4_address = from.IPAMConfig->IPv4Address.value_or("");
    to.ipv6_address = from.IPAMConfig->IPv6Address.value_or("");
    to.link_local_ips = from.IPAMConfig->LinkLocalIPs.value_or(std::vector<std::string>{});
  }
  to.links = from.Links.value_or(std::vector<std::string>{});
  to.aliases = from.Aliases.value_or(std::vector<std::string>{});
  to.mac_address = from.MacAddress;
  to.driver_opts = from.DriverOpts.value_or(json::StringMap{});
  to.gw_priority = static_cast<int>(from.GwPriority);
  return to;
}

network::AttachRequest make_attach_request(const Container& c, const sys::Path& directory) {
  network::AttachRequest request;
  request.container_id = c.id.str();
  request.name = c.name;
  request.hostname = c.config.Hostname;
  request.domainname = c.config.Domainname;
  request.network_mode = c.config.NetworkDisabled.value_or(false) ? "none" : c.network_mode();
  request.without_own = c.left_own_network;
  for (const auto& [name, settings] : c.networks)
    request.networks.emplace(name == "default" ? "bridge" : name, to_network_settings(settings));
  if (c.config.ExposedPorts)
    for (const auto& [port, _] : *c.config.ExposedPorts) request.exposed_ports.push_back(port);
  if (c.host.PortBindings)
    for (const auto& [port, bindings] : *c.host.PortBindings) {
      auto& to = request.port_bindings[port];
      if (!bindings) continue;
      for (const model::PortBinding& binding : *bindings) to.push_back({binding.HostIp, binding.HostPort});
      if (bindings->empty()) to.push_back({});
    }
  request.publish_all = c.host.PublishAllPorts;
  request.dns = c.host.Dns.value_or(std::vector<std::string>{});
  request.dns_search = c.host.DnsSearch.value_or(std::vector<std::string>{});
  request.dns_options = c.host.DnsOptions.value_or(std::vector<std::string>{});
  request.extra_hosts = c.host.ExtraHosts.value_or(std::vector<std::string>{});
  request.container_directory = directory;
  return request;
}

}  // namespace gantry::engine
