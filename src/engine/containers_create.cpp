#include <fcntl.h>

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
#include "engine/names.hpp"
#include "engine/settings.hpp"
#include "image/platform.hpp"
#include "runtime/users.hpp"
#include "storage/root_access.hpp"

namespace gantry::engine {
namespace {

std::optional<image::Platform> requested_platform(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return image::parse_platform(text);
}

NameReservation choose_name(ContainerStore& store, std::string wanted) {
  if (!wanted.empty() && wanted.front() == '/') wanted.erase(0, 1);
  if (!wanted.empty()) {
    validate_container_name(wanted);
    return store.reserve_name(wanted);
  }
  constexpr int kTries = 6;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    std::string name = generate_name(attempt);
    if (!store.find_by_name(name)) return store.reserve_name(name);
  }
  return store.reserve_name(random_id().substr(0, 12));
}

volume::MountRequest to_mount_request(const model::Mount& mount) {
  volume::MountRequest request;
  request.type = mount.Type;
  request.source = mount.Source.value_or("");
  request.target = mount.Target;
  request.read_only = mount.ReadOnly.value_or(false);
  request.consistency = mount.Consistency.value_or("");
  if (const auto& from = mount.BindOptions) {
    auto& to = request.bind.emplace();
    to.propagation = from->Propagation.value_or("");
    to.non_recursive = from->NonRecursive.value_or(false);
    to.create_mountpoint = from->CreateMountpoint.value_or(false);
    to.read_only_non_recursive = from->ReadOnlyNonRecursive.value_or(false);
    to.read_only_force_recursive = from->ReadOnlyForceRecursive.value_or(false);
  }
  if (const auto& from = mount.VolumeOptions) {
    auto& to = request.volume.emplace();
    to.no_copy = from->NoCopy.value_or(false);
    to.labels = from->Labels.value_or(json::StringMap{});
    to.subpath = from->Subpath.value_or("");
    if (from->DriverConfig) {
      to.driver_name = from->DriverConfig->Name.value_or("");
      to.driver_options = from->DriverConfig->Options.value_or(json::StringMap{});
    }
  }
  if (const auto& from = mount.TmpfsOptions) {
    auto& to = request.tmpfs.emplace();
    to.size_bytes = from->SizeBytes.value_or(0);
    to.mode = from->Mode.value_or(0);
    to.options = from->Options.value_or(std::vector<std::vector<std::string>>{});
  }
  if (const auto& from = mount.ImageOptions) request.image.emplace().subpath = from->Subpath.value_or("");
  return request;
}

std::vector<volume::MountPoint> plan_mounts(const ContainerStore& store, const model::ContainerConfig& config,
                                            const model::HostConfig& host) {
  volume::MountInputs inputs;
  inputs.binds = host.Binds.value_or(std::vector<std::string>{});
  if (host.Mounts)
    for (const model::Mount& mount : *host.Mounts) inputs.mounts.push_back(to_mount_request(mount));
  if (host.Tmpfs) inputs.tmpfs = *host.Tmpfs;
  if (config.Volumes)
    for (const auto& [path, _] : *config.Volumes) inputs.volumes.push_back(path);
  if (host.VolumesFrom)
    for (const std::string& text : *host.VolumesFrom) {
      auto spec = volume::parse_volumes_from(text);
      auto mounts = store.get(spec.container)->mounts;
      inputs.volumes_from.push_back({std::move(spec), std::move(mounts)});
    }
  inputs.volume_driver = host.VolumeDriver;
  return volume::resolve_mounts(inputs);
}

/// "container:name" in a mode becomes "container:<full id>", so that a later rename does not change its meaning.
void resolve_joined(const ContainerStore& store, std::string& mode) {
  const std::string other = joined_container(mode);
  if (!other.empty()) mode = "container:" + store.get(other)->id.str();
}

void set_command(Container& container) {
  const auto words = [](const json::StringList& list) { return list ? *list : std::vector<std::string>{}; };
  std::vector<std::string> all = words(container.config.Entrypoint);
  const std::vector<std::string> command = words(container.config.Cmd);
  all.insert(all.end(), command.begin(), command.end());
  container.path = all.front();
  container.args.assign(all.begin() + 1, all.end());
}

/// Makes the working directory, as root's, unless the image has it. Blocks.
void make_working_directory(const sys::Path& rootfs, const std::string& path, const sys::IdMapping& ids) {
  const sys::Fd root = sys::open_file(rootfs, O_PATH | O_DIRECTORY);
  try {
    storage::make_directory_in_root(root.get(), path, ids.host_uid(0), ids.host_gid(0));
  } catch (const Error& e) {
    if (e.code() != Errc::conflict) throw;
    throw Error(Errc::invalid_argument, fmt::format("Cannot mkdir: {} is not a directory", path));
  }
}

}  // namespace

Containers::Containers(Services& services, ContainerStore& store, Lifecycle& lifecycle)
    : services_(services), store_(store), lifecycle_(lifecycle) {}

void Containers::attach_to_images() {
  services_.images.set_users([this] {
    std::vector<image::ImageUser> users;
    for (const ContainerPtr& c : store_.list()) {
      users.push_back({c->id.str(), c->image_id, c->image_ref, c->chain_id, c->state.running});
      for (const volume::MountPoint& mount : c->mounts)
        if (mount.type == volume::MountType::image)
          users.push_back({c->id.str(), mount.image_id, mount.name, mount.chain_id, c->state.running});
    }
    return users;
  });
}

Task<CreateResult> Containers::create(CreateRequest request) {
  auto op = services_.operations.begin("container.create", request.name);
  co_return co_await op->guard(create_steps(op, std::move(request)));
}

Task<CreateResult> Containers::create_steps(async::OperationPtr op, CreateRequest request) {
  CreateResult result;
  result.warnings = std::move(request.warnings);
  op->step("looking up the image");
  const image::ImagePtr image = services_.images.get(request.config.Image, requested_platform(request.platform));

  auto container = std::make_shared<Container>();
  container->config = std::move(request.config);
  container->host = std::move(request.host);
  container->networks = std::move(request.networks);
  container->image_id = image->id;
  container->image_ref = container->config.Image;
  container->chain_id = image->top_chain();
  // Until the row tells that the layers are needed, a prune must not take them.
  storage::LayerHold hold = services_.layers.hold();
  if (!container->chain_id.empty()) hold.add(container->chain_id);

  op->step("checking the settings");
  merge_image_config(container->config, image->config);
  validate_config(container->config);
  const auto warnings = validate_host_config(container->config, container->host, services_.config, services_.host);
  result.warnings.insert(result.warnings.end(), warnings.begin(), warnings.end());
  resolve_joined(store_, container->host.NetworkMode);
  resolve_joined(store_, container->host.IpcMode);
  resolve_joined(store_, container->host.PidMode);
  container->mounts = plan_mounts(store_, container->config, container->host);
  if (container->host.UsernsMode != "host") container->id_mapping = services_.id_mapping;
  container->id = ContainerId(random_id());
  find_mounted_images(*container, hold);
  co_await services_.lanes.quick.run_within(
      std::chrono::seconds(20), [mounts = container->mounts, log = container->host.LogConfig] {
        volume::check_bind_sources_blocking(mounts);
        logs::check_sockets_blocking(log.Type, log.Config.value_or(json::StringMap{}));
      });

  container->created = now();
  const bool own_uts = container->host.UTSMode != "host" && container->network_mode() != "host";
  if (container->config.Hostname.empty() && joined_container(container->network_mode()).empty())
    container->config.Hostname = own_uts ? container->id.short_form() : services_.host.hostname;
  set_command(*container);
  const std::string id = container->id.str();
  if (container->host.LogConfig.Type == "json-file") container->log_path = services_.paths.container_log(id).string();
  validate_links(store_, *container);
  services_.networks.validate(make_attach_request(*container, services_.paths.container(id)));

  NameReservation name = choose_name(store_, request.name);
  container->name = name.name();
  // From here on things are made, so the client's leaving must not interrupt in the middle.
  co_await async::shielded(make_durable(op, container, image));
  result.id = id;
  co_return result;
}

Task<void> Containers::make_durable(async::OperationPtr op, ContainerPtr container, image::ImagePtr image) {
  const std::string id = container->id.str();
  op->step("rebuilding the image's layers");
  co_await services_.images.ensure_unpacked(image);
  op->step("making volumes");
  co_await make_volumes(op, container);
  op->step("writing the container's row");
  op->undo([this, container] { return store_.remove(container); });
  co_await store_.insert(container);
  FAILPOINT("create.after_row");
  op->step("preparing the root file system");
  op->undo([this, container] { return remove_directories(container); });
  services_.rootfs.set_id_mapping(container->id, container->id_mapping);
  co_await services_.rootfs.create(container->id);
  FAILPOINT("create.after_rootfs");
  co_await prepare_content(container);
  FAILPOINT("create.after_content");
  op->commit();
  lifecycle_.publish(*container, "create");
}

/// Fixes which images the mounts of type image mean. What a name means later makes no difference to the container.
void Containers::find_mounted_images(Container& container, storage::LayerHold& hold) {
  for (std::size_t i = 0; i < container.mounts.size(); ++i) {
    volume::MountPoint& mount = container.mounts[i];
    if (mount.type != volume::MountType::image) continue;
    if (mount.image_id.empty()) {
      const image::ImagePtr image = services_.images.get(mount.name);
      mount.image_id = image->id;
      mount.chain_id = image->top_chain();
    }
    if (!mount.chain_id.empty()) hold.add(mount.chain_id);
    mount.source = services_.rootfs.view(container.id, static_cast<unsigned>(i)).string();
  }
}

/// Gives every volume mount its volume and the reference that keeps it from being removed.
Task<void> Containers::make_volumes(async::OperationPtr op, ContainerPtr container) {
  const std::string id = container->id.str();
  for (volume::MountPoint& mount : container->mounts) {
    if (mount.type != volume::MountType::volume) continue;
    const bool existed = !mount.name.empty() && services_.volumes.find(mount.name).has_value();
    volume::CreateVolume request;
    request.name = mount.name;
    request.driver = mount.driver;
    request.options = mount.driver_options;
    request.labels = mount.labels;
    const volume::Volume made = co_await services_.volumes.create(std::move(request));
    if (!existed) op->undo([this, name = made.name] { return services_.volumes.remove(name, true); });
    mount.name = made.name;
    mount.driver = made.driver;
    mount.source = made.mountpoint;
    op->undo([this, id, name = made.name] { return services_.volumes.release(id, name); });
    co_await services_.volumes.acquire(id, made.name);
    FAILPOINT("create.after_volume");
  }
}

/// What must be in place before the first start: the working directory, and the image's content in empty volumes.
Task<void> Containers::prepare_content(ContainerPtr container) {
  const std::string directory = container->config.WorkingDir;
  const bool needs_directory = !directory.empty() && directory != "/";
  bool needs_copy = false;
  for (const volume::MountPoint& mount : container->mounts) needs_copy = needs_copy || mount.copy_data;
  if (!needs_directory && !needs_copy) co_return;
  const sys::Path rootfs = co_await services_.rootfs.mount(container->id, container->chain_id);
  std::exception_ptr failure;
  try {
    if (needs_directory)
      co_await services_.lanes.quick.run(
          [rootfs, directory, ids = container->id_mapping] { make_working_directory(rootfs, directory, ids); });
    if (needs_copy) co_await fill_volumes(container);
  } catch (...) {
    failure = std::current_exception();
  }
  co_await services_.rootfs.unmount(container->id);
  if (failure) std::rethrow_exception(failure);
}

Task<void> Containers::fill_volumes(ContainerPtr container) {
  const std::string id = container->id.str();
  const sys::Path rootfs = services_.paths.rootfs(id);
  for (const volume::MountPoint& mount : container->mounts) {
    if (!mount.copy_data || mount.type != volume::MountType::volume) continue;
    const auto found = services_.volumes.find(mount.name);
    if (!found || found->populated) continue;
    volume::VolumeUse use;
    use.announce = false;
    const sys::Path target = co_await services_.volumes.mount(id, mount.name, use);
    co_await services_.lanes.bulk.run([rootfs, target, inside = mount.destination] {
      const sys::Fd root = sys::open_file(rootfs, O_PATH | O_DIRECTORY);
      const sys::Fd to = sys::open_file(target, O_RDONLY | O_DIRECTORY);
      if (storage::is_empty_directory(to.get())) storage::copy_directory_preserving(root.get(), inside, to.get());
    });
    co_await services_.volumes.unmount(id, mount.name, false);
    co_await services_.volumes.set_populated(mount.name);
  }
}

/// Everything of the container on disk. Idempotent.
Task<void> Containers::remove_directories(ContainerPtr container) {
  co_await services_.rootfs.remove(container->id);
  co_await services_.lanes.bulk.run(
      [directory = services_.paths.container(container->id.str()), shim = services_.paths.shim(container->id.str())] {
        sys::remove_tree(shim);
        sys::remove_tree(directory);
      });
}

}  // namespace gantry::engine
