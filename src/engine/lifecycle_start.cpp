#include <cerrno>

#include <sys/mount.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/containers.hpp"
#include "engine/legacy_links.hpp"
#include "engine/lifecycle.hpp"
#include "engine/log_config.hpp"
#include "engine/messages.hpp"
#include "engine/settings.hpp"
#include "engine/spec_builder.hpp"
#include "runtime/cdi.hpp"
#include "runtime/limits.hpp"
#include "sys/mount.hpp"

namespace gantry::engine {
namespace {

/// How long a start waits for clients that said they want to see the output from its first byte.
constexpr std::chrono::seconds kAttachPatience{2};

/// Carries the exit code that a failed start leaves in the container's state.
class StartError : public Error {
 public:
  StartError(StartFailure failure) : Error(std::move(failure.error)), exit_code_(failure.exit_code) {}
  int exit_code() const noexcept { return exit_code_; }

 private:
  int exit_code_;
};

/// What the container's settings mean cannot be had on this machine at this moment. The request to start it was right,
/// so Docker answers 500, and with the text alone.
class SettingsError : public Error {
 public:
  explicit SettingsError(const Error& e) : Error(Errc::invalid_argument, e.message()) {}
};

sys::Path shm_directory(const sys::Paths& paths, const std::string& id) {
  return paths.container_mounts() / id / "shm";
}

void mount_shm_blocking(const sys::Path& directory, std::int64_t size, const sys::IdMapping& ids) {
  sys::make_directories(directory, 0711);
  if (sys::is_mount_point(directory)) return;
  sys::mount_classic("shm", directory, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                     fmt::format("mode=1777,size={},uid={},gid={}", size, ids.host_uid(0), ids.host_gid(0)));
}

/// hosts, hostname and resolv.conf belong to the container's root.
void give_files_blocking(const sys::Path& directory, const sys::IdMapping& ids) {
  if (ids.empty()) return;
  for (const char* name : {"resolv.conf", "hostname", "hosts"})
    if (::lchown((directory / name).c_str(), ids.host_uid(0), ids.host_gid(0)) != 0 && errno != ENOENT)
      throw Error::from_errno(errno, fmt::format("chown {}", (directory / name).string()));
}

/// The running container that lends a namespace. Throws as Docker words it.
ContainerPtr running_donor(const ContainerStore& store, const std::string& reference, std::string_view kind) {
  ContainerPtr donor = store.get(reference);
  if (!donor->state.running || donor->state.restarting)
    throw Error(Errc::conflict, fmt::format("cannot join {} of a non running container: container {} is {}", kind,
                                            donor->name, status_name(donor->status())));
  return donor;
}

}  // namespace

Task<void> Lifecycle::start(std::string reference) {
  ContainerPtr container = store_.get(reference);
  auto lock = co_await container->mutex.lock("start");
  if (container->removed) throw no_such_container(reference);
  if (container->state.paused) throw Error(Errc::conflict, "cannot start a paused container, try unpause instead");
  if (container->state.running) throw Error(Errc::not_modified, "container is already running");
  if (container->removing || container->state.dead)
    throw Error(Errc::conflict, "container is marked for removal and cannot be started");
  container->state.restart_count = 0;
  container->state.backoff_ms = 0;
  container->state.manually_stopped = false;
  std::exception_ptr failure;
  try {
    co_await async::shielded(start_locked(container));
  } catch (...) {
    failure = std::current_exception();
  }
  if (!failure) co_return;
  lock.unlock();
  // Docker removes it before the client learns of the failure.
  if (container->host.AutoRemove) co_await async::shielded(remove_after_exit(container));
  std::rethrow_exception(failure);
}

/// One start, all or nothing. Requires the container's mutex.
Task<void> Lifecycle::start_locked(ContainerPtr container) {
  auto op = services_.operations.begin("container.start", container->name);
  op->step("waiting until the last run is taken down");
  co_await wait_until_released(container);
  container->state.starting = true;
  container->state.error.clear();
  container->on_exit = OnExit::follow_policy;
  container->cancel_restart = false;
  op->step("writing the container's row");
  co_await store_.save_state(container);
  FAILPOINT("start.after_row");
  std::exception_ptr failure;
  try {
    require_device_drivers(container->host);
    co_await op->guard(start_steps(op, container));
  } catch (const SettingsError& e) {
    failure = std::make_exception_ptr(Error(Errc::internal, e.message()));
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  container->state.starting = false;
  if (failure) note_failed_start(*container, failure);
  co_await save_state_or_log(container);
  container->changed.notify();
  if (failure) std::rethrow_exception(failure);
  FAILPOINT("start.after_running_row");
  publish(*container, "start");
  spawn_supervisor(container);
}

void Lifecycle::note_failed_start(Container& container, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const StartError& e) {
    container.state.exit_code = e.exit_code();
    container.state.error = e.message();
  } catch (const Error& e) {
    container.state.exit_code = 128;
    container.state.error = e.message();
  } catch (const std::exception& e) {
    container.state.exit_code = 128;
    container.state.error = e.what();
  }
}

Task<void> Lifecycle::start_steps(async::OperationPtr op, ContainerPtr container) {
  const std::string id = container->id.str();
  op->step("rebuilding the image's layers");
  // A layer that was lost or damaged since the creation comes back from its blob. An image that was removed by force
  // leaves its layers, which the container's row keeps.
  if (const image::ImagePtr image = services_.images.find(container->image_id))
    co_await services_.images.ensure_unpacked(image);
  for (const volume::MountPoint& mount : container->mounts)
    if (mount.type == volume::MountType::image)
      if (const image::ImagePtr image = services_.images.find(mount.image_id))
        co_await services_.images.ensure_unpacked(image);
  op->step("mounting the root file system");
  op->undo([this, container] { return services_.rootfs.unmount(container->id); });
  co_await services_.rootfs.mount(container->id, container->chain_id);
  FAILPOINT("start.after_mount");

  op->step("setting up container networking");
  if (const std::string donor = joined_container(container->network_mode()); !donor.empty())
    (void)running_donor(store_, donor, "network namespace");
  const sys::Path user_namespace = co_await prepare_user_namespace(op, container);
  op->undo([this, id] { return services_.networks.detach(id); });
  network::AttachRequest request = make_attach_request(*container, services_.paths.container(id));
  request.links = resolve_links(store_, services_.networks, *container);
  request.user_namespace = user_namespace;
  network::AttachResult attached = co_await services_.networks.attach(std::move(request));
  FAILPOINT("start.after_network");

  op->step("mounting volumes");
  op->undo([this, id] { return services_.volumes.unmount_all(id); });
  co_await mount_volumes(container);
  FAILPOINT("start.after_volumes");

  op->step("writing the bundle");
  try {
    co_await write_bundle(container, &attached.attachment, user_namespace);
  } catch (const Error& e) {
    throw SettingsError(e);
  }
  FAILPOINT("start.after_bundle");
  co_await launch(op, container, &attached);
  co_await update_links_to(services_, store_, container);
  // From here on its processes keep the user namespace. What cannot be taken away is found again by recover().
  try {
    if (!user_namespace.empty())
      co_await services_.lanes.quick.run([path = services_.paths.userns() / id] { sys::remove_user_namespace(path); });
  } catch (const Error& e) {
    log::warning("container {}: {}", container->name, e.log_detail());
  }
}

/// The user namespace that the container is to live in, as a path; empty: the host's. Namespaces of other containers
/// can only be joined by those who live in the same one.
Task<sys::Path> Lifecycle::prepare_user_namespace(async::OperationPtr op, ContainerPtr container) {
  ContainerPtr lender;
  for (const std::string& mode : {container->network_mode(), container->host.PidMode, container->host.IpcMode}) {
    const std::string donor = joined_container(mode);
    const ContainerPtr known = donor.empty() ? nullptr : store_.find(donor);
    if (!known || (known->id_mapping.empty() && container->id_mapping.empty())) continue;
    lender = running_donor(store_, donor, "a namespace");
    if (lender->id_mapping != container->id_mapping)
      throw Error(Errc::conflict, fmt::format("cannot join a namespace of container {}: it lives in another user "
                                              "namespace; make both with the same UsernsMode",
                                              lender->name));
  }
  if (container->id_mapping.empty()) co_return sys::Path();
  if (lender) co_return sys::Path(fmt::format("/proc/{}/ns/user", lender->state.pid));
  op->step("making the user namespace");
  const sys::Path path = services_.paths.userns() / container->id.str();
  op->undo([this, path] { return services_.lanes.quick.run([path] { sys::remove_user_namespace(path); }); });
  co_await services_.lanes.quick.run([path, ids = container->id_mapping] { sys::create_user_namespace(path, ids); });
  FAILPOINT("start.after_user_namespace");
  co_return path;
}

Task<void> Lifecycle::mount_volumes(ContainerPtr container) {
  const std::string id = container->id.str();
  for (const volume::MountPoint& mount : container->mounts)
    if (mount.type == volume::MountType::volume) co_await services_.volumes.mount(id, mount.name, volume_use(mount));
  for (std::size_t i = 0; i < container->mounts.size(); ++i)
    if (container->mounts[i].type == volume::MountType::image)
      co_await services_.rootfs.mount_view(container->id, static_cast<unsigned>(i), container->mounts[i].chain_id);
  co_await services_.lanes.quick.run_within(
      std::chrono::seconds(30), [mounts = container->mounts] { volume::create_bind_sources_blocking(mounts); });
}

Task<void> Lifecycle::write_bundle(ContainerPtr container, const network::Attachment* attachment,
                                   sys::Path user_namespace) {
  const std::string id = container->id.str();
  auto in = std::make_shared<SpecInputs>();
  in->id = container->id;
  in->path = container->path;
  in->args = container->args;
  in->config = container->config;
  in->host = container->host;
  in->mounts = container->mounts;
  in->rootfs = services_.paths.rootfs(id);
  in->directory = services_.paths.container(id);
  in->files_directory = in->directory;
  in->netns_path = attachment->netns_path;
  in->userns_path = user_namespace.string();
  in->id_mapping = container->id_mapping;
  in->link_env = link_environment(store_, services_.networks, *container);
  in->hostname = container->config.Hostname;
  in->shares_network = !attachment->donor_id.empty();
  if (in->shares_network) {
    in->files_directory = services_.paths.container(attachment->donor_id);
    in->hostname = store_.get(attachment->donor_id)->config.Hostname;
  }
  if (const std::string donor = joined_container(container->host.PidMode); !donor.empty())
    in->pid_donor = running_donor(store_, donor, "PID namespace")->state.pid;
  if (const std::string donor = joined_container(container->host.IpcMode); !donor.empty()) {
    const ContainerPtr lender = running_donor(store_, donor, "IPC namespace");
    if (lender->host.IpcMode != "shareable")
      throw Error(Errc::invalid_argument,
                  fmt::format("container {}: non-shareable IPC (hint: use IpcMode:shareable for "
                              "the donor container)",
                              lender->id.str()));
    in->ipc_donor = lender->state.pid;
    in->shm_source = shm_directory(services_.paths, lender->id.str());
  }
  if (container->host.IpcMode == "shareable") in->shm_source = shm_directory(services_.paths, id);
  if (container->host.Init.value_or(services_.config.init) && container->host.PidMode.empty()) {
    in->init_path = services_.host.init.path;
    if (in->init_path.empty())
      throw Error(Errc::internal, fmt::format("exec: {}: executable file not found in $PATH",
                                              quote(services_.config.init_path.empty() ? services_.config.default_init
                                                                                       : services_.config.init_path)));
  }
  in->cgroups_path = runtime::cgroups_path(container->cgroup_parent(services_.config.cgroup_parent), id,
                                           services_.config.systemd_cgroups());
  in->cdi_directories =
      services_.config.cdi_spec_dirs.empty() ? runtime::kDefaultCdiDirectories : services_.config.cdi_spec_dirs;
  for (const auto& [name, limit] : services_.config.default_ulimits)
    in->default_ulimits.push_back({name, limit.soft, limit.hard});
  in->daemon_seccomp_unconfined = services_.config.seccomp_profile == "unconfined";
  in->daemon_no_new_privileges = services_.config.no_new_privileges;

  const runtime::HostFacts* facts = &services_.host;
  runtime::SeccompCache* seccomp = &services_.seccomp;
  const bool shares_ipc = container->host.IpcMode == "shareable";
  co_await services_.lanes.quick.run([in, facts, seccomp, shares_ipc, shm = shm_directory(services_.paths, id),
                                      bundle = services_.paths.shim(id) / "bundle",
                                      profile = services_.config.seccomp_profile] {
    if (shares_ipc) mount_shm_blocking(shm, in->host.ShmSize, in->id_mapping);
    if (!in->shares_network) give_files_blocking(in->files_directory, in->id_mapping);
    if (profile != "builtin" && profile != "unconfined" && !profile.empty())
      in->daemon_seccomp_profile = sys::read_file(profile, 1 << 20);
    sys::make_directories(bundle, 0700);
    // Not synced: after a power cut there is no container left to describe.
    sys::write_atomically(bundle / "config.json", build_spec_blocking(*in, *facts, *seccomp), 0600, false);
  });
}

protocol::ShimConfig Lifecycle::shim_config(const Container& container) const {
  const std::string id = container.id.str();
  protocol::ShimConfig config;
  config.container_id = id;
  config.bundle = (services_.paths.shim(id) / "bundle").string();
  const std::string runtime = container.host.Runtime.value_or("runc");
  const auto configured = services_.config.runtimes.find(runtime);
  if (configured != services_.config.runtimes.end() && !configured->second.path.empty()) {
    config.runtime_path = configured->second.path;
    config.runtime_args = configured->second.args;
  } else {
    config.runtime_path = services_.host.runc.path.empty() ? "runc" : services_.host.runc.path;
  }
  const std::string program = sys::Path(config.runtime_path).filename();
  config.direct = program == "runc" || program == "crun";
  if (services_.config.systemd_cgroups()) config.runtime_args.emplace_back("--systemd-cgroup");
  config.runtime_root =
      (services_.paths.exec_root / "runtime" / (runtime == "io.containerd.runc.v2" ? "runc" : runtime)).string();
  config.tty = container.config.Tty;
  config.open_stdin = container.config.OpenStdin;
  config.stdin_once = container.config.StdinOnce;
  if (container.host.ConsoleSize.size() == 2) {
    config.rows = static_cast<std::uint16_t>(container.host.ConsoleSize[0]);
    config.columns = static_cast<std::uint16_t>(container.host.ConsoleSize[1]);
  }
  fill_log_config(config, services_.paths, container);
  const std::string group = cgroup_of(container);
  const auto directory = [&](std::string_view controller) {
    const auto found = services_.host.cgroup.directory(controller, group);
    return found ? found->string() : std::string();
  };
  config.cgroup_memory = directory("memory");
  config.cgroup_freezer = directory("freezer");
  config.cgroup_procs = directory("pids");
  return config;
}

Task<void> Lifecycle::launch(async::OperationPtr op, ContainerPtr container, network::AttachResult* attached) {
  const std::string id = container->id.str();
  const sys::Path directory = services_.paths.shim(id);
  op->step("starting the shim");
  op->undo([this, container] { return take_back_start(container); });
  protocol::ShimConfig config = shim_config(*container);
  config.netns = attached->attachment.netns_path;
  config.names = attached->attachment.names_path;
  auto sockets = std::make_shared<std::vector<network::PublishedSocket>>(std::move(attached->sockets));
  for (const network::PublishedSocket& socket : *sockets)
    config.ports.push_back({socket.proto, socket.container_ip, socket.container_port, socket.relay});
  const sys::CgroupLayout* cgroup = &services_.host.cgroup;
  co_await services_.lanes.quick.run([program = services_.shim_program, directory, config, sockets, cgroup]() mutable {
    if (const auto own = sys::own_cgroup(*cgroup, "pids")) config.cgroup_shim = *own;
    std::vector<int> descriptors;
    for (const network::PublishedSocket& socket : *sockets) descriptors.push_back(socket.socket.get());
    runtime::spawn_shim_blocking(program, directory, config, std::chrono::seconds(10), descriptors);
  });
  FAILPOINT("start.after_shim");
  runtime::ShimClient shim = co_await runtime::ShimClient::connect(directory);

  container->shim = shim;
  ++container->starts;
  container->changed.notify();
  co_await let_clients_attach(container);

  op->step("starting the process");
  const runtime::StartResult started = co_await shim.start();
  if (started.failure) throw StartError(render_start_failure(*started.failure, container->path));
  FAILPOINT("start.after_process");
  op->commit();
  container->state.running = true;
  container->state.restarting = false;
  container->state.paused = false;
  container->state.oom_killed = false;
  container->state.has_been_started = true;
  container->state.pid = started.pid;
  container->state.exit_code = 0;
  container->state.started = Timestamp(std::chrono::nanoseconds(started.started_ns));
  container->state.finished = Timestamp{};
}

Task<void> Lifecycle::let_clients_attach(ContainerPtr container) {
  const auto deadline = std::chrono::steady_clock::now() + kAttachPatience;
  while (container->waiting_attachments > 0) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0) || !co_await container->changed.wait_for(left)) co_return;
  }
}

/// Ends whatever a start that failed has begun in the runtime and in the shim. Idempotent.
Task<void> Lifecycle::take_back_start(ContainerPtr container) {
  container->shim.reset();
  co_await remove_from_runtime(container);
}

}  // namespace gantry::engine
