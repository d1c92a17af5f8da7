#include "buildops/exec_op.hpp"

#include <algorithm>
#include <future>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "buildlink/engine.hpp"
#include "buildops/attributes.hpp"
#include "buildops/container_process.hpp"
#include "buildops/exec_directory.hpp"
#include "buildops/exec_mounts.hpp"
#include "buildops/exec_spec.hpp"
#include "buildops/mount_stubs.hpp"
#include "buildops/tree_path.hpp"
#include "runtime/users.hpp"
#include "session/sessions.hpp"
#include "solver/solver.hpp"

namespace gantry::buildops {
namespace {

using buildcache::SnapshotPtr;

constexpr std::size_t kIdLength = 25;

/// A mount whose identity says no more than its place: Dockerfile's default, perhaps in a name space.
bool is_default_cache(const pb::Mount& mount) {
  const std::string& id = mount.cache_opt().id();
  if (mount.cache_opt().sharing() != pb::SHARING_SHARED) return false;
  const std::size_t slash = id.find('/');
  return id == mount.dest() || (slash != std::string::npos && id.substr(slash + 1) == mount.dest());
}

/// The step without what must not make its result another one.
pb::ExecOp keyed_op(const pb::ExecOp& op) {
  pb::ExecOp keyed = op;
  for (pb::HostIP& host : *keyed.mutable_meta()->mutable_extra_hosts()) host.clear_ip();
  keyed.mutable_meta()->clear_proxy_env();
  for (pb::Mount& mount : *keyed.mutable_mounts()) {
    mount.clear_selector();
    if (!mount.has_cache_opt() || is_default_cache(mount)) continue;
    mount.mutable_cache_opt()->clear_id();
    mount.mutable_cache_opt()->clear_sharing();
  }
  return keyed;
}

/// What is mounted only in part, and written to, must be taken as a whole: the rest of it is in the result.
bool goes_by_content(const pb::Mount& mount) {
  if (mount.dest() == "/") return false;  // too much to read, and of little use
  return mount.output() < 0 || mount.readonly() || absolute_path(mount.selector()) == "/";
}

std::vector<solver::CacheDep> mount_deps(const pb::ExecOp& op, std::size_t inputs) {
  std::vector<solver::CacheDep> deps(inputs);
  std::vector<bool> whole(inputs, false);
  for (const pb::Mount& mount : op.mounts()) {
    if (mount.input() < 0 || static_cast<std::size_t>(mount.input()) >= inputs) continue;
    const auto index = static_cast<std::size_t>(mount.input());
    if (!goes_by_content(mount)) whole[index] = true;
    solver::Selector selector;
    selector.path = absolute_path(mount.selector());
    deps[index].selectors.push_back(std::move(selector));
    deps[index].by_content = true;
  }
  for (std::size_t i = 0; i < inputs; ++i)
    if (whole[i]) deps[i] = {};
  return deps;
}

class ExecOperation final : public solver::Operation {
 public:
  ExecOperation(const Services& services, ExecShared& shared, const llb::Vertex& vertex)
      : services_(services), shared_(shared), vertex_(vertex) {
    if (op().meta().args().empty()) throw Error(Errc::invalid_argument, "invalid exec op with no args");
    if (op().mounts().empty()) throw Error(Errc::invalid_argument, "invalid exec op with no mounts");
    if (!op().cdi_devices().empty()) throw Error(Errc::not_implemented, "devices are not supported in builds");
  }

  solver::CacheMap cache_map(solver::OpContext&) override {
    solver::CacheMap map;
    const pb::Platform& platform = vertex_.op().platform();
    map.key = fmt::format("exec.v1\n{}/{}/{}/{}\n", platform.os().empty() ? "linux" : platform.os(),
                          platform.architecture().empty() ? services_.facts.goarch : platform.architecture(),
                          platform.variant(), platform.os_version());
    map.key += keyed_op(op()).SerializeAsString();
    map.deps = mount_deps(op(), vertex_.inputs().size());
    return map;
  }

  std::vector<SnapshotPtr> execute(solver::OpContext& context, const std::vector<SnapshotPtr>& inputs) override {
    require_entitlements(context);
    const std::string id = random_id().substr(0, kIdLength);
    // The namespace is made while we prepare the trees.
    auto network = std::async(std::launch::async, [&] { return attach_network(id, context.stop); });
    ExecDirectory directory(services_.run_directory, id);
    ExecMounts mounts(services_, context, op(), inputs, directory);
    const int code = run(id, context, directory, mounts, network);
    if (!is_valid(code)) throw solver::ExitError(code, fmt::format("{}: exit code: {}", failure(), code));
    return mounts.commit(static_cast<std::size_t>(vertex_.outputs()));
  }

 private:
  const pb::ExecOp& op() const { return vertex_.op().exec(); }

  std::string failure() const {
    const std::string command = join({op().meta().args().begin(), op().meta().args().end()}, " ");
    return fmt::format("process {} did not complete successfully", quote(command));
  }

  bool is_valid(int code) const {
    const auto& valid = op().meta().valid_exit_codes();
    return valid.empty() ? code == 0 : std::ranges::find(valid, code) != valid.end();
  }

  void require_entitlements(const solver::OpContext& context) const {
    const auto require = [&](const char* name) {
      if (!context.entitlements.contains(name)) throw Error(Errc::forbidden, fmt::format("{} is not allowed", name));
    };
    if (op().network() == pb::NET_HOST) require("network.host");
    if (op().security() == pb::SECURITY_INSECURE) require("security.insecure");
  }

  std::string network_mode() const {
    if (op().network() == pb::NET_HOST) return "host";
    if (op().network() == pb::NET_NONE) return "none";
    // `docker build --network NAME` of the classic builder; like all names of networks no part of the key.
    const auto named = vertex_.description().find("gantry.network");
    return named == vertex_.description().end() ? "bridge" : named->second;
  }

  buildlink::Network attach_network(const std::string& id, std::stop_token stop) const {
    buildlink::NetworkRequest request;
    request.id = id;
    request.mode = network_mode();
    request.hostname = exec_hostname(op());
    for (const pb::HostIP& host : op().meta().extra_hosts())
      request.extra_hosts.push_back(fmt::format("{}:{}", host.host(), host.ip()));
    return services_.engine.attach_network(request, std::move(stop));
  }

  std::vector<std::string> secret_environment(const solver::OpContext& context) const {
    std::vector<std::string> env;
    for (const pb::SecretEnv& secret : op().secretenv()) {
      if (secret.id().empty())
        throw Error(Errc::invalid_argument,
                    fmt::format("secret ID missing for {} environment variable", quote(secret.name())));
      try {
        env.push_back(fmt::format("{}={}", secret.name(),
                                  services_.sessions.secret(context.sessions.ids(), secret.id(), context.stop)));
      } catch (const Error& e) {
        if (e.code() != Errc::not_found || !secret.optional()) throw;
      }
    }
    return env;
  }

  /// Runs the process and leaves the tree as if nothing had been mounted into it. Returns the exit status.
  int run(const std::string& id, solver::OpContext& context, ExecDirectory& directory, const ExecMounts& mounts,
          std::future<buildlink::Network>& attaching) const {
    const buildlink::Settings settings = services_.engine.settings();
    runtime::ResolvedUser user;
    try {
      user = runtime::resolve_user_blocking(mounts.root().string(), op().meta().user(), {});
    } catch (Error& e) {
      e.prefix(failure());
      throw;
    }
    std::vector<std::string> secrets = secret_environment(context);
    buildlink::Network network = attaching.get();
    const ExecInputs inputs{.id = id,
                            .mounts = mounts,
                            .user = user.user,
                            .secret_env = std::move(secrets),
                            .settings = settings,
                            .netns = network.netns,
                            .hosts_file = directory.write("hosts", network.hosts),
                            .resolv_file = directory.write("resolv.conf", network.resolv_conf)};
    const runtime::ContainerSpec spec = make_exec_spec(op(), inputs, services_.facts, shared_.seccomp);
    MountStubs stubs(mounts.root_fd());
    if (!mounts.root_is_read_only()) prepare_root(mounts, user.user, stubs);
    directory.write("config.json", runtime::render_oci_config(spec, services_.facts));
    const ContainerRun container{.id = id,
                                 .runtime = settings.RuntimePath.empty() ? "runc" : settings.RuntimePath,
                                 .runtime_args = settings.RuntimeArgs,
                                 .state_directory = services_.run_directory / "runtime",
                                 .bundle = directory.path(),
                                 .cgroup = exec_cgroup(op(), id, settings)};
    const int code = run_container(container, context.progress, services_.facts.cgroup, context.stop);
    shared_.disposal.add(std::move(network.lease));
    stubs.remove();
    return code;
  }

  void prepare_root(const ExecMounts& mounts, const runtime::ProcessUser& user, MountStubs& stubs) const {
    Looks looks;
    looks.owner = Owner{user.uid, user.gid};
    const std::string cwd = resolve_path(mounts.root_fd(), op().meta().cwd());
    make_directories(mounts.root_fd(), cwd, looks);
    std::vector<MountStubs::Target> targets = mounts.targets();
    for (const char* path : {"/proc", "/sys", "/dev"}) targets.push_back({path, true});
    for (const char* path : {"/etc/hosts", "/etc/resolv.conf"})
      if (std::ranges::none_of(targets, [&](const MountStubs::Target& target) { return target.path == path; }))
        targets.push_back({path, false});
    stubs.make(targets);
  }

  const Services& services_;
  ExecShared& shared_;
  const llb::Vertex vertex_;
};

}  // namespace

std::unique_ptr<solver::Operation> make_exec_operation(const Services& services, ExecShared& shared,
                                                       const llb::Vertex& vertex) {
  return std::make_unique<ExecOperation>(services, shared, vertex);
}

}  // namespace gantry::buildops
