#include <algorithm>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/containers.hpp"
#include "engine/legacy_links.hpp"
#include "engine/lifecycle.hpp"
#include "engine/messages.hpp"

namespace gantry::engine {

Task<void> Containers::remove(std::string reference, RemoveOptions options) {
  if (options.link) {
    co_await async::shielded(store_.save(take_link(store_, reference)));
    co_return;
  }
  ContainerPtr container = store_.get(reference);
  co_await async::shielded(remove_container(container, options));
}

Task<void> Containers::remove_container(ContainerPtr container, RemoveOptions options) {
  if (container->removing)
    throw Error(Errc::conflict, fmt::format("removal of container {} is already in progress", container->name));
  if (container->removed) throw no_such_container(container->id.str());
  if (container->state.running && !options.force) {
    const bool paused = container->state.paused;
    throw Error(Errc::conflict, fmt::format("cannot remove container {}: container is {}", quote(container->name),
                                            paused ? "paused and must be unpaused first"
                                                   : std::string(status_name(container->status())) +
                                                         ": stop the container before removing or force remove"));
  }
  container->removing = true;
  container->changed.notify();
  auto op = services_.operations.begin("container.remove", container->name);
  std::exception_ptr failure;
  try {
    co_await op->guard(remove_steps(op, container, options));
  } catch (const Error& e) {
    container->removal_error = e.message();
    failure = std::current_exception();
  }
  container->removing = false;
  if (failure) {
    container->state.dead = true;
    container->changed.notify();
    co_await store_.save_state(container);
    std::rethrow_exception(failure);
  }
}

Task<void> Containers::remove_steps(async::OperationPtr op, ContainerPtr container, RemoveOptions options) {
  const std::string id = container->id.str();
  op->step("stopping the container");
  if (container->state.running) co_await lifecycle_.kill_and_wait(container);
  FAILPOINT("remove.after_stop");
  op->step("waiting for the container's turn");
  auto lock = co_await container->mutex.lock("remove");
  if (container->state.running) co_await lifecycle_.kill_and_wait(container);
  co_await lifecycle_.wait_until_released(container);
  op->step("taking down what the container used");
  co_await services_.networks.detach(id);
  co_await services_.volumes.unmount_all(id);
  op->step("removing the root file system");
  co_await remove_directories(container);
  FAILPOINT("remove.after_directories");
  op->step("releasing volumes");
  std::vector<std::string> volumes;
  for (const volume::MountPoint& mount : container->mounts)
    if (mount.type == volume::MountType::volume && mount.anonymous) volumes.push_back(mount.name);
  co_await services_.volumes.release_all(id);
  FAILPOINT("remove.before_row");
  op->step("removing the container's row");
  co_await store_.remove(container);
  FAILPOINT("remove.after_row");
  if (options.volumes) co_await remove_volumes(volumes);
  // Last, because whoever waits for the removal may look for the volumes next.
  container->removed = true;
  lifecycle_.publish(*container, "destroy");
  container->changed.notify();
}

/// What cannot be removed stays as an unused volume, which prune finds: the container itself is gone.
Task<void> Containers::remove_volumes(std::vector<std::string> names) {
  for (const std::string& name : names) {
    try {
      co_await services_.volumes.remove(name, true);
    } catch (const Error& e) {
      // Another container may use it through --volumes-from.
      if (e.code() != Errc::conflict) log::warning("volume {}: {}", name, e.message());
    }
  }
}

Task<PruneResult> Containers::prune(std::function<bool(const Container&)> matches) {
  if (pruning_) throw Error(Errc::conflict, "a prune operation is already running");
  pruning_ = true;
  struct Done {
    bool& flag;
    ~Done() { flag = false; }
  } done{pruning_};
  PruneResult result;
  for (const ContainerPtr& container : store_.list()) {
    if (container->state.running || container->removing || container->removed || !matches(*container)) continue;
    try {
      const std::uint64_t size = co_await services_.rootfs.upper_size(container->id);
      co_await remove_container(container, {});
      result.reclaimed += size;
      result.removed.push_back(container->id.str());
    } catch (const Error& e) {
      // It was started, or is being removed by somebody else: not ours to prune any more.
      if (e.code() != Errc::conflict && e.code() != Errc::not_found) throw;
    }
  }
  services_.events.publish("container", "prune", "", {{"reclaimed", std::to_string(result.reclaimed)}});
  co_return result;
}

}  // namespace gantry::engine
