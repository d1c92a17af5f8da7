#include "buildops/exec_spec.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildops/tree_path.hpp"
#include "runtime/capabilities.hpp"
#include "runtime/devices.hpp"
#include "runtime/limits.hpp"

namespace gantry::buildops {
namespace {

constexpr std::size_t kProfileLimit = 1 << 20;

void add_proxy(std::vector<std::string>& env, const char* upper, const char* lower, const std::string& value) {
  if (value.empty()) return;
  env.push_back(fmt::format("{}={}", upper, value));
  env.push_back(fmt::format("{}={}", lower, value));
}

std::vector<runtime::Ulimit> ulimits_of(const pb::Meta& meta) {
  std::vector<runtime::Ulimit> limits;
  for (const pb::Ulimit& limit : meta.ulimit()) limits.push_back({limit.name(), limit.soft(), limit.hard()});
  runtime::validate_ulimits(limits);
  return limits;
}

void set_confinement(runtime::ContainerSpec& spec, bool insecure, const buildlink::Settings& settings,
                     const runtime::HostFacts& facts, runtime::SeccompCache& seccomp) {
  runtime::CapabilityRequest request;
  request.privileged = spec.privileged = insecure;
  spec.capabilities = runtime::resolve_capabilities(request, facts.own_capabilities);
  if (insecure) {
    spec.devices = runtime::list_host_devices_blocking();
    return;
  }
  if (!facts.seccomp || settings.Unconfined) return;
  spec.seccomp = settings.SeccompProfile.empty()
                     ? seccomp.get_default(spec.capabilities)
                     : seccomp.get(sys::read_file(settings.SeccompProfile, kProfileLimit), spec.capabilities);
}

}  // namespace

std::string exec_hostname(const pb::ExecOp& op) {
  return op.meta().hostname().empty() ? std::string(kExecHostname) : op.meta().hostname();
}

std::string exec_cgroup(const pb::ExecOp& op, const std::string& id, const buildlink::Settings& settings) {
  const std::string& parent = op.meta().cgroup_parent();
  if (parent.empty()) return fmt::format("{}/{}", settings.CgroupParent, id);
  runtime::validate_cgroup_parent(parent, parent.ends_with(".slice"));
  return fmt::format("{}/buildkit/{}", absolute_path(parent), id);
}

std::vector<std::string> exec_environment(const pb::ExecOp& op, const ExecInputs& inputs) {
  std::vector<std::string> env{"HOSTNAME"};  // without "=": not set by us; shells do it themselves
  for (const std::string& entry : op.meta().env())
    if (entry.find('=') != std::string::npos) env.push_back(entry);
  const pb::ProxyEnv& proxy = op.meta().proxy_env();
  add_proxy(env, "HTTP_PROXY", "http_proxy", proxy.http_proxy());
  add_proxy(env, "HTTPS_PROXY", "https_proxy", proxy.https_proxy());
  add_proxy(env, "FTP_PROXY", "ftp_proxy", proxy.ftp_proxy());
  add_proxy(env, "NO_PROXY", "no_proxy", proxy.no_proxy());
  add_proxy(env, "ALL_PROXY", "all_proxy", proxy.all_proxy());
  const auto has = [&](std::string_view beginning) {
    return std::ranges::any_of(env, [&](const std::string& entry) { return entry.starts_with(beginning); });
  };
  if (!inputs.mounts.agent_socket().empty() && !has("SSH_AUTH_SOCK="))
    env.push_back("SSH_AUTH_SOCK=" + inputs.mounts.agent_socket());
  env.insert(env.end(), inputs.secret_env.begin(), inputs.secret_env.end());
  return env;
}

runtime::ContainerSpec make_exec_spec(const pb::ExecOp& op, const ExecInputs& inputs, const runtime::HostFacts& facts,
                                      runtime::SeccompCache& seccomp) {
  const pb::Meta& meta = op.meta();
  runtime::ContainerSpec spec;
  spec.id = inputs.id;
  spec.args.assign(meta.args().begin(), meta.args().end());
  spec.env = exec_environment(op, inputs);
  spec.cwd = absolute_path(meta.cwd());
  spec.user = inputs.user;
  spec.ulimits = ulimits_of(meta);
  // The worker is the first to go when memory is short; what it runs is not. Lowering takes a privilege (proc(5)).
  const int own = facts.own_oom_score_adj;
  if (own < 0 || (own > 0 && facts.own_capabilities.contains("CAP_SYS_RESOURCE"))) spec.oom_score_adj = 0;
  spec.hostname = exec_hostname(op);
  spec.rootfs = inputs.mounts.root().string();
  spec.readonly_rootfs = inputs.mounts.root_is_read_only();
  spec.shm_size = inputs.settings.DefaultShmSize;
  spec.net =
      inputs.netns.empty() ? runtime::NamespaceChoice::host() : runtime::NamespaceChoice::join(inputs.netns.string());
  if (facts.cgroup.is_v2() && facts.cgroup_namespaces) spec.cgroup = runtime::NamespaceChoice::fresh();
  spec.cgroups_path = exec_cgroup(op, inputs.id, inputs.settings);
  set_confinement(spec, op.security() == pb::SECURITY_INSECURE, inputs.settings, facts, seccomp);
  runtime::BindOptions read_only;
  read_only.read_only = true;
  for (const auto& [file, target] :
       {std::pair{inputs.hosts_file, "/etc/hosts"}, std::pair{inputs.resolv_file, "/etc/resolv.conf"}})
    if (std::ranges::none_of(inputs.mounts.mounts(),
                             [&](const runtime::Mount& mount) { return mount.destination == target; }))
      spec.mounts.push_back(runtime::bind_mount(file.string(), target, read_only, facts));
  spec.mounts.insert(spec.mounts.end(), inputs.mounts.mounts().begin(), inputs.mounts.mounts().end());
  return spec;
}

}  // namespace gantry::buildops
