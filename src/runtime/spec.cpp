#include "runtime/spec.hpp"

#include <limits>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/expect.hpp"
#include "base/text.hpp"
#include "json/json.hpp"
#include "runtime/spec_mounts.hpp"

namespace gantry::runtime {
namespace {

using json::Array;
using json::Object;

constexpr std::string_view kOciVersion = "1.0.2";
constexpr std::int64_t kDefaultPeriod = 100'000;  // microseconds: the kernel's own default

Array render_list(const std::vector<std::string>& items) {
  Array array;
  array.reserve(items.size());
  for (const std::string& item : items) array.emplace_back(item);
  return array;
}

Object render_map(const std::map<std::string, std::string>& items) {
  Object object;
  for (const auto& [key, value] : items) object.emplace(key, value);
  return object;
}

std::uint64_t rlimit_value(std::int64_t value) {
  return value < 0 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(value);
}

Array render_rlimits(const std::vector<Ulimit>& ulimits) {
  Array array;
  for (const Ulimit& limit : ulimits)
    array.push_back(Object{{"type", "RLIMIT_" + to_upper(limit.name)},
                           {"hard", rlimit_value(limit.hard)},
                           {"soft", rlimit_value(limit.soft)}});
  return array;
}

Object render_process(const ProcessSpec& process) {
  Array gids;
  for (const std::uint32_t gid : process.user.additional_gids) gids.emplace_back(gid);
  Object user{{"uid", process.user.uid}, {"gid", process.user.gid}};
  if (!gids.empty()) user["additionalGids"] = std::move(gids);
  Object out{{"terminal", process.terminal}};
  if (process.terminal && process.console_size)
    out["consoleSize"] = Object{{"height", process.console_size->height}, {"width", process.console_size->width}};
  out["user"] = std::move(user);
  out["args"] = render_list(process.args);
  out["env"] = render_list(process.env);
  out["cwd"] = process.cwd.empty() ? "/" : process.cwd;
  // Inheritable and ambient stay empty: a program of another user gains nothing by execve (CVE-2022-24769).
  const Array capabilities = render_list(process.capabilities);
  out["capabilities"] = Object{{"bounding", capabilities}, {"effective", capabilities}, {"permitted", capabilities}};
  if (!process.ulimits.empty()) out["rlimits"] = render_rlimits(process.ulimits);
  out["noNewPrivileges"] = process.no_new_privileges;
  if (!process.apparmor_profile.empty()) out["apparmorProfile"] = process.apparmor_profile;
  if (process.oom_score_adj) out["oomScoreAdj"] = *process.oom_score_adj;
  if (!process.selinux_label.empty()) out["selinuxLabel"] = process.selinux_label;
  return out;
}

ProcessSpec process_of(const ContainerSpec& spec) {
  ProcessSpec process;
  if (!spec.init_path.empty()) process.args = {std::string(kInitInContainer), "--"};
  process.args.insert(process.args.end(), spec.args.begin(), spec.args.end());
  process.env = render_env(spec.hostname, spec.terminal, spec.link_env, spec.env);
  process.cwd = spec.cwd;
  process.user = spec.user;
  process.terminal = spec.terminal;
  process.console_size = spec.console_size;
  process.capabilities = spec.capabilities;
  process.no_new_privileges = spec.no_new_privileges;
  process.oom_score_adj = spec.oom_score_adj;
  process.ulimits = spec.ulimits;
  process.apparmor_profile = spec.apparmor_profile;
  process.selinux_label = spec.selinux_label;
  return process;
}

Array render_mounts(const ContainerSpec& spec) {
  Array array;
  for (const Mount& mount : merge_default_mounts(spec)) {
    Object object{{"destination", mount.destination}, {"type", mount.type}, {"source", mount.source}};
    if (!mount.options.empty()) object["options"] = render_list(mount.options);
    array.push_back(std::move(object));
  }
  return array;
}

Array render_namespaces(const ContainerSpec& spec) {
  Array array{Object{{"type", "mount"}}};
  const auto add = [&](const char* type, const NamespaceChoice& choice) {
    if (choice.kind == NamespaceChoice::Kind::host) return;
    Object object{{"type", type}};
    if (choice.kind == NamespaceChoice::Kind::join) object["path"] = choice.path;
    array.push_back(std::move(object));
  };
  add("network", spec.net);
  add("uts", spec.uts);
  add("pid", spec.pid);
  add("ipc", spec.ipc);
  add("cgroup", spec.cgroup);
  add("user", spec.user_namespace);
  return array;
}

Array render_id_mappings(const std::vector<IdMapping>& mappings) {
  Array array;
  for (const IdMapping& m : mappings)
    array.push_back(Object{{"containerID", m.container_id}, {"hostID", m.host_id}, {"size", m.size}});
  return array;
}

Object render_sysctls(const ContainerSpec& spec) {
  std::map<std::string, std::string> sysctls;
  const bool private_net = spec.net.kind != NamespaceChoice::Kind::host && !spec.shares_network;
  if (private_net) {
    if (spec.user_namespace.kind == NamespaceChoice::Kind::host) sysctls["net.ipv4.ping_group_range"] = "0 2147483647";
    sysctls["net.ipv4.ip_unprivileged_port_start"] = "0";
  }
  // runtime-spec 1.0 has no field for the NIS domain name; this sysctl is the same as setdomainname(2).
  if (!spec.domainname.empty() && spec.uts.kind == NamespaceChoice::Kind::fresh)
    sysctls["kernel.domainname"] = spec.domainname;
  for (const auto& [name, value] : spec.sysctls) sysctls[name] = value;
  return render_map(sysctls);
}

Object render_rule(const DeviceRule& rule) {
  Object object{{"allow", rule.allow}};
  if (rule.type != 'a') object["type"] = std::string(1, rule.type);
  if (rule.major) object["major"] = *rule.major;
  if (rule.minor) object["minor"] = *rule.minor;
  object["access"] = rule.access;
  return object;
}

Array render_device_rules(const ContainerSpec& spec) {
  Array array;
  if (spec.privileged) {
    array.push_back(render_rule({}));
    return array;
  }
  DeviceRule deny_all;
  deny_all.allow = false;
  array.push_back(render_rule(deny_all));
  const auto character = [](bool allow, std::int64_t major, std::int64_t minor) {
    return render_rule({.allow = allow, .type = 'c', .major = major, .minor = minor, .access = "rwm"});
  };
  array.push_back(character(true, 1, 5));      // zero
  array.push_back(character(true, 1, 3));      // null
  array.push_back(character(true, 1, 9));      // urandom
  array.push_back(character(true, 1, 8));      // random
  array.push_back(character(true, 5, 0));      // tty
  array.push_back(character(true, 5, 1));      // console
  array.push_back(character(false, 10, 229));  // fuse
  for (const DeviceRule& rule : spec.device_rules) array.push_back(render_rule(rule));
  return array;
}

Array render_devices(const std::vector<Device>& devices) {
  Array array;
  for (const Device& d : devices) {
    Object object{{"path", d.path}, {"type", std::string(1, d.type)}};
    if (d.type != 'p') {
      object["major"] = d.major;
      object["minor"] = d.minor;
    }
    object["fileMode"] = d.file_mode;
    object["uid"] = d.uid;
    object["gid"] = d.gid;
    array.push_back(std::move(object));
  }
  return array;
}

Object render_memory(const Resources& r) {
  Object memory;
  if (r.memory != 0) memory["limit"] = r.memory;
  if (r.memory_reservation != 0) memory["reservation"] = r.memory_reservation;
  if (r.memory_swap != 0) memory["swap"] = r.memory_swap;
  if (r.memory_swappiness && *r.memory_swappiness >= 0) memory["swappiness"] = *r.memory_swappiness;
  if (r.oom_kill_disable.value_or(false)) memory["disableOOMKiller"] = true;
  return memory;
}

Object render_cpu(const Resources& r) {
  Object cpu;
  if (r.cpu_shares != 0) cpu["shares"] = r.cpu_shares;
  if (r.nano_cpus != 0) {
    cpu["period"] = kDefaultPeriod;
    // In this order the product stays below 2^63 for any number of processors that validation lets pass.
    cpu["quota"] = r.nano_cpus / 1000 * kDefaultPeriod / 1'000'000;
  }
  if (r.cpu_period != 0) cpu["period"] = r.cpu_period;
  if (r.cpu_quota != 0) cpu["quota"] = r.cpu_quota;
  if (r.cpu_realtime_period != 0) cpu["realtimePeriod"] = r.cpu_realtime_period;
  if (r.cpu_realtime_runtime != 0) cpu["realtimeRuntime"] = r.cpu_realtime_runtime;
  if (!r.cpuset_cpus.empty()) cpu["cpus"] = r.cpuset_cpus;
  if (!r.cpuset_mems.empty()) cpu["mems"] = r.cpuset_mems;
  return cpu;
}

Object render_block_io(const Resources& r) {
  Object block;
  const auto add = [&](const char* name, const char* what, const std::vector<BlockDeviceLimit>& limits) {
    Array array;
    for (const BlockDeviceLimit& limit : limits)
      array.push_back(Object{{"major", limit.major}, {"minor", limit.minor}, {what, limit.value}});
    if (!array.empty()) block[name] = std::move(array);
  };
  if (r.blkio_weight != 0) block["weight"] = r.blkio_weight;
  add("weightDevice", "weight", r.blkio_weight_device);
  add("throttleReadBpsDevice", "rate", r.blkio_read_bps);
  add("throttleWriteBpsDevice", "rate", r.blkio_write_bps);
  add("throttleReadIOPSDevice", "rate", r.blkio_read_iops);
  add("throttleWriteIOPSDevice", "rate", r.blkio_write_iops);
  return block;
}

Object render_resources(const Resources& r) {
  Object resources;
  const auto add = [&](const char* name, Object object) {
    if (!object.empty()) resources[name] = std::move(object);
  };
  add("memory", render_memory(r));
  add("cpu", render_cpu(r));
  // runc takes -1 as "no limit", which also lifts one that was set before.
  if (r.pids_limit) resources["pids"] = Object{{"limit", *r.pids_limit > 0 ? *r.pids_limit : std::int64_t{-1}}};
  add("blockIO", render_block_io(r));
  return resources;
}

Object render_linux(const ContainerSpec& spec, const HostFacts& facts) {
  Object out;
  if (!spec.uid_mappings.empty()) out["uidMappings"] = render_id_mappings(spec.uid_mappings);
  if (!spec.gid_mappings.empty()) out["gidMappings"] = render_id_mappings(spec.gid_mappings);
  if (Object sysctls = render_sysctls(spec); !sysctls.empty()) out["sysctl"] = std::move(sysctls);
  Object resources{{"devices", render_device_rules(spec)}};
  for (auto& [name, value] : render_resources(spec.resources)) resources[name] = value;
  out["resources"] = std::move(resources);
  out["cgroupsPath"] = spec.cgroups_path;
  out["namespaces"] = render_namespaces(spec);
  if (!spec.devices.empty()) out["devices"] = render_devices(spec.devices);
  if (!spec.rootfs_propagation.empty()) out["rootfsPropagation"] = spec.rootfs_propagation;
  const auto add_paths = [&](const char* name, const std::vector<std::string>& paths) {
    if (!paths.empty() && !spec.privileged) out[name] = render_list(paths);
  };
  add_paths("maskedPaths", spec.masked_paths ? *spec.masked_paths : default_masked_paths(facts));
  add_paths("readonlyPaths", spec.readonly_paths ? *spec.readonly_paths : default_readonly_paths());
  return out;
}

Object render_hooks(const std::vector<Hook>& hooks) {
  Object out;
  for (const Hook& hook : hooks) {
    Object object{{"path", hook.path}};
    if (!hook.args.empty()) object["args"] = render_list(hook.args);
    if (!hook.env.empty()) object["env"] = render_list(hook.env);
    if (hook.timeout > 0) object["timeout"] = hook.timeout;
    if (!out.contains(hook.point)) out[hook.point] = Array{};
    out[hook.point].as_array().push_back(std::move(object));
  }
  return out;
}

}  // namespace

std::string render_oci_config(const ContainerSpec& spec, const HostFacts& facts) {
  EXPECTS(!spec.args.empty() && !spec.rootfs.empty() && !spec.cgroups_path.empty());
  Object config{{"ociVersion", kOciVersion}};
  config["process"] = render_process(process_of(spec));
  config["root"] = Object{{"path", spec.rootfs}, {"readonly", spec.readonly_rootfs}};
  // A host name in a UTS namespace that is not the container's own would rename the host (runc refuses it).
  if (spec.uts.kind == NamespaceChoice::Kind::fresh) config["hostname"] = spec.hostname;
  config["mounts"] = render_mounts(spec);
  if (!spec.annotations.empty()) config["annotations"] = render_map(spec.annotations);
  if (!spec.hooks.empty()) config["hooks"] = render_hooks(spec.hooks);
  config["linux"] = render_linux(spec, facts);
  std::string text = json::render(config);
  // The filter is text already, 12 kB of it, shared by all containers: it is spliced in at the end of "linux", which
  // is the last member.
  if (spec.seccomp) text.insert(text.size() - 2, ",\"seccomp\":" + *spec.seccomp);
  return text;
}

std::string render_oci_resources(const Resources& resources) { return json::render(render_resources(resources)); }

std::string render_oci_process(const ProcessSpec& process) {
  EXPECTS(!process.args.empty());
  return json::render(render_process(process));
}

}  // namespace gantry::runtime
