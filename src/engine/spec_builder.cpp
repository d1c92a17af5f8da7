#include "engine/spec_builder.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/settings.hpp"
#include "runtime/capabilities.hpp"
#include "runtime/cdi.hpp"
#include "runtime/devices.hpp"
#include "runtime/limits.hpp"
#include "runtime/propagation.hpp"
#include "runtime/security_opts.hpp"
#include "runtime/spec.hpp"
#include "runtime/users.hpp"
#include "storage/root_access.hpp"

#include <fcntl.h>

namespace gantry::engine {
namespace {

using runtime::ContainerSpec;
using runtime::NamespaceChoice;

std::vector<std::string> words(const std::optional<std::vector<std::string>>& list) {
  return list ? *list : std::vector<std::string>{};
}

NamespaceChoice choose_namespace(const std::string& mode, std::int64_t donor, std::string_view kind) {
  if (mode == "host") return NamespaceChoice::host();
  if (donor != 0) return NamespaceChoice::join(fmt::format("/proc/{}/ns/{}", donor, kind));
  return NamespaceChoice::fresh();
}

void set_process(ContainerSpec& spec, const SpecInputs& in, const runtime::HostFacts& facts) {
  spec.args.push_back(in.path);
  spec.args.insert(spec.args.end(), in.args.begin(), in.args.end());
  spec.cwd = in.config.WorkingDir.empty() ? "/" : in.config.WorkingDir;
  spec.terminal = in.config.Tty;
  if (in.config.Tty && in.host.ConsoleSize.size() == 2 && in.host.ConsoleSize[0] > 0)
    spec.console_size = runtime::ConsoleSize{static_cast<std::uint32_t>(in.host.ConsoleSize[0]),
                                             static_cast<std::uint32_t>(in.host.ConsoleSize[1])};
  const auto resolved = runtime::resolve_user_blocking(in.rootfs.string(), in.config.User, words(in.host.GroupAdd));
  spec.user = resolved.user;
  spec.env = words(in.config.Env);
  spec.link_env = in.link_env;
  ProcessPolicy policy = process_policy(in.host, in.default_ulimits, in.daemon_no_new_privileges, facts);
  spec.capabilities = std::move(policy.capabilities);
  spec.no_new_privileges = policy.no_new_privileges;
  spec.oom_score_adj = policy.oom_score_adj;
  spec.ulimits = std::move(policy.ulimits);
  spec.init_path = in.init_path;
}

void set_security(ContainerSpec& spec, const SpecInputs& in, const runtime::HostFacts& facts,
                  runtime::SeccompCache& seccomp) {
  using Seccomp = runtime::SecurityOptions::Seccomp;
  const auto options = runtime::parse_security_opts(words(in.host.SecurityOpt), facts);
  spec.writable_cgroups = options.writable_cgroups;
  spec.privileged = in.host.Privileged;
  spec.masked_paths = in.host.MaskedPaths;
  spec.readonly_paths = in.host.ReadonlyPaths;
  if (!facts.seccomp) return;
  switch (options.seccomp) {
    case Seccomp::unconfined: return;
    case Seccomp::custom: spec.seccomp = seccomp.get(options.seccomp_profile, spec.capabilities); return;
    case Seccomp::builtin: spec.seccomp = seccomp.get_default(spec.capabilities); return;
    case Seccomp::by_default:
      if (in.host.Privileged || in.daemon_seccomp_unconfined) return;
      spec.seccomp = in.daemon_seccomp_profile.empty() ? seccomp.get_default(spec.capabilities)
                                                       : seccomp.get(in.daemon_seccomp_profile, spec.capabilities);
  }
}

void set_namespaces(ContainerSpec& spec, const SpecInputs& in) {
  spec.hostname = in.hostname;
  spec.domainname = in.config.Domainname;
  spec.shares_network = in.shares_network;
  spec.net = in.netns_path.empty() ? NamespaceChoice::host() : NamespaceChoice::join(in.netns_path);
  spec.pid = choose_namespace(in.host.PidMode, in.pid_donor, "pid");
  spec.ipc = choose_namespace(in.host.IpcMode, in.ipc_donor, "ipc");
  spec.uts = in.host.UTSMode == "host" ? NamespaceChoice::host() : NamespaceChoice::fresh();
  spec.cgroup = in.host.CgroupnsMode == "private" ? NamespaceChoice::fresh() : NamespaceChoice::host();
  if (!in.userns_path.empty()) {
    spec.user_namespace = NamespaceChoice::join(in.userns_path);
    for (const sys::IdRange& range : in.id_mapping.uids)
      spec.uid_mappings.push_back({range.inside, range.outside, range.count});
    for (const sys::IdRange& range : in.id_mapping.gids)
      spec.gid_mappings.push_back({range.inside, range.outside, range.count});
  }
  spec.shm_size = in.host.ShmSize;
  if (in.host.IpcMode == "host") spec.shm_source = "/dev/shm";
  else if (in.host.IpcMode == "none") spec.without_shm = true;
  else if (!in.shm_source.empty()) spec.shm_source = in.shm_source.string();
}

void set_limits(ContainerSpec& spec, const SpecInputs& in) {
  spec.resources = to_runtime_resources(in.host);
  runtime::resolve_block_devices_blocking(spec.resources);
  if (in.host.Sysctls) spec.sysctls = *in.host.Sysctls;
  spec.cgroups_path = in.cgroups_path;
  if (in.host.Annotations) spec.annotations = *in.host.Annotations;
  if (in.host.Privileged) spec.devices = runtime::list_host_devices_blocking();
  if (in.host.Devices)
    for (const model::DeviceMapping& device : *in.host.Devices) {
      auto resolved =
          runtime::resolve_device_blocking({device.PathOnHost, device.PathInContainer, device.CgroupPermissions});
      spec.devices.insert(spec.devices.end(), resolved.devices.begin(), resolved.devices.end());
      spec.device_rules.insert(spec.device_rules.end(), resolved.rules.begin(), resolved.rules.end());
    }
  if (in.host.DeviceCgroupRules)
    for (const std::string& rule : *in.host.DeviceCgroupRules)
      spec.device_rules.push_back(runtime::parse_device_rule(rule));
}

/// The directory that a mount point binds. A subpath is resolved inside the volume or image.
std::string bind_source(const SpecInputs& in, const volume::MountPoint& mount) {
  if (mount.type == volume::MountType::bind) return mount.source;
  const auto it = in.volume_paths.find(mount.name);
  const sys::Path root = it == in.volume_paths.end() ? sys::Path(mount.source) : it->second;
  if (mount.subpath.empty()) return root.string();
  const sys::Fd at = sys::open_file(root, O_PATH | O_DIRECTORY);
  sys::Fd inside;
  try {
    inside = sys::open_in_root(at.get(), mount.subpath, O_PATH);
  } catch (Error& e) {
    e.prefix(fmt::format("cannot access path {}", (root / mount.subpath).string()));
    throw;
  }
  return sys::Path(std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", inside.get()))).string();
}

void set_mounts(ContainerSpec& spec, const SpecInputs& in, const runtime::HostFacts& facts) {
  spec.rootfs = in.rootfs.string();
  spec.readonly_rootfs = in.host.ReadonlyRootfs;
  std::vector<runtime::Mount> managed;
  if (in.own_files)
    for (const char* name : {"resolv.conf", "hostname", "hosts"}) {
      runtime::BindOptions options;
      options.read_only = in.host.ReadonlyRootfs;
      managed.push_back(
          runtime::bind_mount((in.files_directory / name).string(), std::string("/etc/") + name, options, facts));
    }
  for (const volume::MountPoint& mount : in.mounts) {
    std::erase_if(managed, [&](const runtime::Mount& m) { return m.destination == mount.destination; });
    if (mount.type == volume::MountType::tmpfs) {
      std::vector<std::string> options = mount.tmpfs_options;
      if (!mount.rw) options.emplace_back("ro");
      managed.push_back(runtime::tmpfs_mount(mount.destination, options));
      continue;
    }
    runtime::BindOptions options;
    options.read_only = !mount.rw;
    options.recursive_read_only = !mount.read_only_non_recursive;
    if (mount.read_only_force_recursive && !facts.recursive_read_only)
      throw Error(
          Errc::invalid_argument,
          fmt::format("{} cannot be mounted read-only recursively: it takes Linux 5.12 and a runtime that knows "
                      "\"rro\"",
                      mount.destination));
    options.non_recursive = mount.non_recursive;
    options.propagation = mount.propagation;
    const std::string source = bind_source(in, mount);
    if (mount.type == volume::MountType::bind)
      spec.rootfs_propagation = runtime::merge_root_propagation(
          spec.rootfs_propagation, runtime::required_root_propagation_blocking(source, mount.propagation));
    managed.push_back(runtime::bind_mount(source, mount.destination, options, facts));
  }
  spec.mounts = std::move(managed);
}

/// HostConfig.DeviceRequests. After everything else, because a device may replace a mount.
void inject_devices(ContainerSpec& spec, const SpecInputs& in, const runtime::HostFacts& facts) {
  if (!in.host.DeviceRequests) return;
  for (const model::DeviceRequest& request : *in.host.DeviceRequests) {
    if (request.Count != 0) throw Error(Errc::invalid_argument, "unexpected count in CDI device request");
    if (request.Options && !request.Options->empty())
      throw Error(Errc::invalid_argument, "unexpected options in CDI device request");
    runtime::inject_cdi_devices_blocking(spec, in.cdi_directories, words(request.DeviceIDs), facts);
  }
}

}  // namespace

void require_device_drivers(const model::HostConfig& host) {
  if (!host.DeviceRequests) return;
  for (const model::DeviceRequest& request : *host.DeviceRequests) {
    if (request.Driver == "cdi") continue;
    std::vector<std::string> sets;
    if (request.Capabilities)
      for (const auto& set : *request.Capabilities) sets.push_back("[" + join(set, " ") + "]");
    throw Error(Errc::internal, fmt::format("could not select device driver {} with capabilities: [{}]",
                                            quote(request.Driver), join(sets, " ")));
  }
}

ProcessPolicy process_policy(const model::HostConfig& host, const std::vector<runtime::Ulimit>& default_ulimits,
                             bool daemon_no_new_privileges, const runtime::HostFacts& facts) {
  ProcessPolicy policy;
  runtime::CapabilityRequest request{words(host.CapAdd), words(host.CapDrop), host.Privileged};
  policy.capabilities = runtime::resolve_capabilities(request, facts.own_capabilities);
  policy.no_new_privileges =
      runtime::parse_security_opts(words(host.SecurityOpt), facts).no_new_privileges.value_or(daemon_no_new_privileges);
  // A service manager protects the daemon; that is not for containers. Only lowering takes a privilege (proc(5)).
  const int own = facts.own_oom_score_adj;
  const bool can_reset = own < 0 || (own > 0 && facts.own_capabilities.contains("CAP_SYS_RESOURCE"));
  if (host.OomScoreAdj != 0 || can_reset) policy.oom_score_adj = static_cast<int>(host.OomScoreAdj);
  policy.ulimits = runtime::merge_ulimits(default_ulimits, to_runtime_ulimits(host));
  return policy;
}

std::string build_spec_blocking(const SpecInputs& inputs, const runtime::HostFacts& facts,
                                runtime::SeccompCache& seccomp) {
  ContainerSpec spec;
  spec.id = inputs.id.str();
  set_process(spec, inputs, facts);
  set_security(spec, inputs, facts, seccomp);
  set_namespaces(spec, inputs);
  set_limits(spec, inputs);
  set_mounts(spec, inputs, facts);
  inject_devices(spec, inputs, facts);
  return runtime::render_oci_config(spec, facts);
}

}  // namespace gantry::engine
