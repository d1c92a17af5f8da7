#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "engine/containers.hpp"
#include "engine/lifecycle.hpp"
#include "engine/network_links.hpp"
#include "engine/settings.hpp"

namespace gantry::engine {

std::set<std::string> Lifecycle::find_live_blocking(const sys::Paths& paths) {
  std::set<std::string> live;
  std::vector<std::string> ids;
  try {
    ids = sys::list_directory(paths.shims());
  } catch (const Error&) {
    return live;  // the first start of this boot
  }
  for (const std::string& id : ids)
    if (runtime::find_shim_blocking(paths.shim(id)) && !runtime::read_exit_blocking(paths.shim(id))) live.insert(id);
  return live;
}

Task<std::vector<std::string>> Lifecycle::recover() {
  std::vector<std::string> report;
  // Starts that were cut off: no process needs these paths.
  co_await services_.lanes.quick.run([directory = services_.paths.userns()] {
    sys::make_directories(directory, 0711);
    for (const std::string& name : sys::list_directory(directory)) sys::remove_user_namespace(directory / name);
  });
  for (const ContainerPtr& container : store_.list()) {
    const ContainerState before = container->state;
    try {
      if (before.starting || (before.running && !before.restarting)) {
        if (co_await adopt(container)) continue;
        report.push_back(fmt::format("container {} ended while the daemon was away (exit code {})", container->name,
                                     container->state.exit_code));
      } else if (before.restarting) {
        // It waited for its next try. What is left of the last run goes, and the wait goes on.
        co_await release(container);
      } else {
        // Somebody may have been reading its files when the daemon ended.
        co_await services_.rootfs.unmount(container->id);
      }
    } catch (const Error& e) {
      report.push_back(fmt::format("container {} could not be recovered: {}", container->name, e.message()));
      log::error("recovering container {}: {}", container->name, e.log_detail());
    }
  }
  co_await sweep_shims();
  co_return report;
}

/// Takes a container over whose row says that it runs, or that a start was under way. True if it runs.
Task<bool> Lifecycle::adopt(ContainerPtr container) {
  const std::string id = container->id.str();
  ContainerState& state = container->state;
  std::optional<protocol::ContainerState> seen;
  try {
    runtime::ShimClient shim = co_await runtime::ShimClient::connect(services_.paths.shim(id));
    seen = co_await shim.state();
    container->shim = shim;
  } catch (const Error& e) {
    log::debug("container {}: no shim: {}", container->name, e.message());
  }
  using ShimStatus = protocol::Status;
  const bool began = seen && (seen->status == ShimStatus::running || seen->status == ShimStatus::stopped);
  if (state.starting && !began) {
    const bool was_up = seen.has_value();
    container->shim.reset();
    state.starting = false;
    // A start by the restart policy is tried again; a user's start is the user's to repeat.
    state.running = state.restarting;
    if (state.restarting) --state.restart_count;
    co_await release(container);
    co_await save_state_or_log(container);
    log::info("container {}: a start that was cut short{} is taken back", container->name,
              was_up ? " in its shim" : "");
    co_return false;
  }
  state.starting = false;
  state.running = true;
  state.restarting = false;
  state.has_been_started = true;
  if (began) {
    ++container->starts;
    state.paused = seen->paused;
    if (seen->pid != 0) state.pid = seen->pid;
    state.started = Timestamp(std::chrono::nanoseconds(seen->started_ns));
  }
  if (seen && seen->status == ShimStatus::running) {
    state.finished = Timestamp{};
    for (const volume::MountPoint& mount : container->mounts) {
      volume::VolumeUse use = volume_use(mount);
      use.announce = false;
      if (mount.type == volume::MountType::volume) co_await services_.volumes.mount(id, mount.name, std::move(use));
    }
    co_await save_state_or_log(container);
    // Where the daemon was cut off in the middle of a rename or a connect.
    try {
      co_await services_.networks.rename(id, container->name);
      co_await serve_names(services_, container);
    } catch (const Error& e) {
      log::warning("container {}: its names are not as they should be: {}", container->name, e.log_detail());
    }
    spawn_supervisor(container);
    co_return true;
  }
  const protocol::ExitRecord exit = co_await await_exit(container);
  co_await record_exit(container, exit);
  co_await release(container);
  co_return false;
}

/// Ends shims whose container has no row, or is known to be down.
Task<void> Lifecycle::sweep_shims() {
  const auto ids = co_await services_.lanes.quick.run([directory = services_.paths.shims()] {
    sys::make_directories(directory, 0700);
    return sys::list_directory(directory);
  });
  for (const std::string& id : ids) {
    ContainerPtr container = store_.find(id);
    if (container && container->state.running && !container->state.restarting) continue;
    if (!container) {
      log::warning("shim {} belongs to no container: removing it", id);
      container = std::make_shared<Container>();
      container->id = ContainerId(id);
      container->name = id.substr(0, 12);
    }
    try {
      co_await remove_from_runtime(container);
    } catch (const Error& e) {
      log::error("shim {} could not be removed: {}", id, e.log_detail());
    }
  }
}

void Lifecycle::follow_up() {
  for (const ContainerPtr& container : store_.list()) {
    if (container->state.running && !container->state.restarting) continue;
    const model::RestartPolicy& policy = container->host.RestartPolicy;
    const bool boot_policy =
        container->state.has_been_started &&
        (policy.Name == "always" || (policy.Name == "unless-stopped" && !container->state.manually_stopped));
    if (container->state.restarting || boot_policy) {
      container->state.running = true;
      container->state.restarting = true;
      supervisors_->spawn("restart of " + container->name, resume_policy(container));
    } else if (container->host.AutoRemove && (container->state.has_been_started || !container->state.error.empty())) {
      supervisors_->spawn("removal of " + container->name, remove_after_exit(container));
    }
  }
}

Task<void> Lifecycle::resume_policy(ContainerPtr container) {
  if (co_await restart_by_policy(container)) co_return;
  if (container->host.AutoRemove) co_await async::shielded(remove_after_exit(container));
}

}  // namespace gantry::engine
