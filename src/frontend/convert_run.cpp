#include <set>
#include <variant>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/command_line.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/mount.hpp"
#include "dockerfile/values.hpp"
#include "frontend/convert.hpp"

// RUN: the op that runs a command, with its mounts.
namespace gantry::frontend {
namespace {

constexpr const char* kSecretDirectory = "/run/secrets/";

std::int64_t add_input(pb::Op& op, const llb::Output& output) {
  if (output.empty()) return -1;
  for (int i = 0; i < op.inputs_size(); ++i)
    if (op.inputs(i).digest() == output.digest && op.inputs(i).index() == output.index) return i;
  auto& input = *op.add_inputs();
  input.set_digest(output.digest);
  input.set_index(output.index);
  return op.inputs_size() - 1;
}

/// `|2 A=1 B=2 /bin/sh -c …`
std::string history_command(const std::vector<std::string>& build_args, const std::vector<std::string>& args) {
  std::string out;
  if (!build_args.empty()) out = "|" + std::to_string(build_args.size()) + " " + join(build_args, " ") + " ";
  return out + join(args, " ");
}

void set_proxies(pb::Meta& meta, const std::map<std::string, std::string>& build_args) {
  for (const auto& [name, value] : dockerfile::proxy_variables(build_args)) {
    auto& proxy = *meta.mutable_proxy_env();
    const std::string key = to_lower(name);
    if (key == "http_proxy") proxy.set_http_proxy(value);
    if (key == "https_proxy") proxy.set_https_proxy(value);
    if (key == "ftp_proxy") proxy.set_ftp_proxy(value);
    if (key == "no_proxy") proxy.set_no_proxy(value);
    if (key == "all_proxy") proxy.set_all_proxy(value);
  }
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void add_secret(pb::ExecOp& exec, const dockerfile::Mount& mount, const std::string& directory,
                std::vector<std::string>& masked) {
  std::string id = mount.source.empty() ? mount.id : mount.source;
  if (id.empty() && mount.target.empty()) throw Error(Errc::invalid_argument, "one of source, target required");
  if (id.empty()) id = base_name(dockerfile::clean_path(mount.target));
  if (mount.env) {
    auto& env = *exec.add_secretenv();
    env.set_id(id);
    env.set_name(*mount.env);
    env.set_optional(!mount.required);
    masked.push_back(*mount.env);
    if (mount.target.empty()) return;
  }
  auto& to = *exec.add_mounts();
  to.set_input(-1);
  to.set_output(-1);
  to.set_mount_type(pb::MOUNT_SECRET);
  to.set_dest(mount.target.empty()
                  ? kSecretDirectory + base_name(id)
                  : absolute_path(mount.target.starts_with('/') ? mount.target : directory + "/" + mount.target));
  auto& secret = *to.mutable_secret_opt();
  secret.set_id(id);
  secret.set_uid(mount.uid.value_or(0));
  secret.set_gid(mount.gid.value_or(0));
  secret.set_mode(mount.mode.value_or(0400));
  secret.set_optional(!mount.required);
}

/// The number of the socket decides where it is, unless the mount says.
void add_ssh(pb::ExecOp& exec, const dockerfile::Mount& mount, int number) {
  auto& to = *exec.add_mounts();
  to.set_input(-1);
  to.set_output(-1);
  to.set_mount_type(pb::MOUNT_SSH);
  to.set_dest(mount.target.empty() ? "/run/buildkit/ssh_agent." + std::to_string(number) : mount.target);
  auto& ssh = *to.mutable_ssh_opt();
  ssh.set_id(mount.id.empty() ? "default" : mount.id);
  ssh.set_uid(mount.uid.value_or(0));
  ssh.set_gid(mount.gid.value_or(0));
  ssh.set_mode(mount.mode.value_or(0600));
  ssh.set_optional(!mount.required);
  if (number == 0) exec.mutable_meta()->add_env("SSH_AUTH_SOCK=" + to.dest());
}

pb::CacheSharing sharing_of(const dockerfile::Mount& mount) {
  switch (mount.sharing.value_or(dockerfile::MountSharing::shared)) {
    case dockerfile::MountSharing::shared: return pb::SHARING_SHARED;
    case dockerfile::MountSharing::private_: return pb::SHARING_PRIVATE;
    case dockerfile::MountSharing::locked: return pb::SHARING_LOCKED;
  }
  return pb::SHARING_SHARED;
}

}  // namespace

void Converter::apply_run(StageState& stage, const dockerfile::PlannedInstruction& planned) {
  const auto& run = std::get<dockerfile::RunInstruction>(planned.instruction.body);
  const dockerfile::RunCommand command = dockerfile::run_command(run, stage.image.shell);
  pb::Op op;
  auto& exec = *op.mutable_exec();
  auto& root = *exec.add_mounts();
  root.set_dest("/");
  root.set_input(add_input(op, stage.root));
  root.set_output(0);
  auto& meta = *exec.mutable_meta();
  for (const auto& word : command.args) meta.add_args(word);
  for (const auto& one : stage.scope->environment().list()) meta.add_env(one);
  meta.set_cwd(stage.image.working_directory.empty() ? "/" : stage.image.working_directory);
  meta.set_user(stage.image.user);
  meta.set_hostname(options_.hostname);
  meta.set_cgroup_parent(options_.cgroup_parent);
  meta.set_remove_mount_stubs_recursive(true);
  for (const auto& host : options_.extra_hosts) {
    auto& to = *meta.add_extra_hosts();
    to.set_host(host.name);
    to.set_ip(host.address);
  }
  for (const auto& limit : options_.ulimits) {
    auto& to = *meta.add_ulimit();
    to.set_name(limit.name);
    to.set_soft(limit.soft);
    to.set_hard(limit.hard);
  }
  set_proxies(meta, options_.build_args);

  auto network = run.network;
  const bool network_given = std::find(run.flags_used.begin(), run.flags_used.end(), "network") != run.flags_used.end();
  if (!network_given && options_.network) network = *options_.network;
  if (network == dockerfile::RunNetwork::host) exec.set_network(pb::NET_HOST);
  if (network == dockerfile::RunNetwork::none) exec.set_network(pb::NET_NONE);
  if (run.security == dockerfile::RunSecurity::insecure) exec.set_security(pb::SECURITY_INSECURE);
  for (const auto& device : run.devices) {
    auto& to = *exec.add_cdi_devices();
    to.set_name(device.name);
    to.set_optional(!device.required);
  }

  std::vector<std::string> masked;
  add_mounts(stage, planned, run, op, masked);
  if (command.script) {
    auto& mount = *exec.add_mounts();
    mount.set_input(add_input(op, add_inline_file(graph_, command.script->name, command.script->content, 0755,
                                                  "[internal] preparing inline document")));
    mount.set_output(-1);
    mount.set_readonly(true);
    mount.set_dest(dockerfile::kScriptDirectory);
  }
  if (options_.shm_size > 0) {
    auto& shm = *exec.add_mounts();
    shm.set_input(-1);
    shm.set_output(-1);
    shm.set_dest("/dev/shm");
    shm.set_mount_type(pb::MOUNT_TMPFS);
    shm.mutable_tmpfs_opt()->set_size(options_.shm_size);
  }
  set_platform(op, stage.platform);
  const std::string name = next_step_name(
      stage, shown_instruction(planned, stage.scope->environment(), file_.escape, masked), platform_prefix(stage));
  StepMeta step = step_meta(stage, name, planned.instruction.lines);
  if (exec.network() == pb::NET_UNSET) step.network = options_.network_name;
  stage.root = graph_.add(op, make_metadata(step),
                          {source_file_, planned.instruction.lines.first, planned.instruction.lines.last});
  const std::string shown = history_command(stage.scope->history_args(), command.args);
  add_step_history(stage, "RUN " + shown + " # buildkit", shown);
}

void Converter::add_mounts(StageState& stage, const dockerfile::PlannedInstruction& planned,
                           const dockerfile::RunInstruction& run, pb::Op& op, std::vector<std::string>& masked) {
  const dockerfile::Environment& environment = stage.scope->environment();
  const auto expand = [&](std::string_view word) {
    dockerfile::ExpandOptions options;
    options.escape = file_.escape;
    return dockerfile::expand(word, environment, options).text;
  };
  int sockets = 0;
  for (std::size_t i = 0; i < run.mounts.size(); ++i) {
    const dockerfile::Mount mount = dockerfile::parse_mount(run.mounts[i].text, expand);
    const std::string directory = stage.image.working_directory;
    if (mount.type == dockerfile::MountType::secret) {
      add_secret(*op.mutable_exec(), mount, directory, masked);
    } else if (mount.type == dockerfile::MountType::ssh) {
      add_ssh(*op.mutable_exec(), mount, sockets++);
    } else {
      CopySource from;
      const bool needs_tree = mount.type == dockerfile::MountType::bind ||
                              (mount.type == dockerfile::MountType::cache && !mount.from.empty());
      if (needs_tree) from = source(planned.sources.at(i), stage.platform);
      add_tree_mount(stage, mount, from, op);
    }
  }
}

void Converter::add_tree_mount(StageState& stage, const dockerfile::Mount& mount, const CopySource& from, pb::Op& op) {
  const std::string target = mount.target.starts_with('/')
                                 ? absolute_path(mount.target)
                                 : absolute_path(stage.image.working_directory + "/" + mount.target);
  if (mount.target.empty() || target == "/")
    throw Error(Errc::invalid_argument, "invalid mount target " + quote(mount.target));
  pb::Mount to;
  to.set_dest(target);
  to.set_output(-1);
  llb::Output tree = from.tree;
  std::string selector = absolute_path(mount.source);
  if (mount.type == dockerfile::MountType::tmpfs) {
    to.set_mount_type(pb::MOUNT_TMPFS);
    to.mutable_tmpfs_opt()->set_size(mount.size);
    tree = {};
    selector = "/";
  }
  if (mount.type == dockerfile::MountType::bind) {
    to.set_readonly(mount.read_only);
    if (!mount.read_only) to.set_output(-2);
    use_path(from, mount.source);
  }
  if (mount.type == dockerfile::MountType::cache) {
    to.set_mount_type(pb::MOUNT_CACHE);
    to.set_readonly(mount.read_only);
    to.mutable_cache_opt()->set_id(options_.cache_mount_namespace + "/" +
                                   (mount.id.empty() ? dockerfile::clean_path(mount.target) : mount.id));
    to.mutable_cache_opt()->set_sharing(sharing_of(mount));
    if (selector == "/" && (mount.uid || mount.gid || mount.mode)) {
      FileStep step(tree);
      auto& make = *step.add_action().mutable_mkdir();
      make.set_path("/cache");
      make.set_mode(static_cast<std::int32_t>(mount.mode.value_or(0755)));
      make.set_timestamp(-1);
      make.mutable_owner()->mutable_user()->set_by_id(mount.uid.value_or(0));
      make.mutable_owner()->mutable_group()->set_by_id(mount.gid.value_or(0));
      tree = step.add_to(graph_, stage.platform, {.name = "[internal] setting cache mount permissions"});
      selector = "/cache";
    }
  }
  to.set_input(add_input(op, tree));
  if (selector != "/") to.set_selector(selector);
  *op.mutable_exec()->add_mounts() = std::move(to);
}

}  // namespace gantry::frontend
