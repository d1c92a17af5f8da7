#include <algorithm>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "engine/containers.hpp"
#include "engine/lifecycle.hpp"
#include "sys/cgroup.hpp"
#include "sys/mount.hpp"
#include "sys/process.hpp"

namespace gantry::engine {
namespace {

using std::chrono::milliseconds;

/// Docker's arithmetic: 100 ms, doubled with each exit within ten seconds of its start, at most a minute.
constexpr milliseconds kFirstDelay{100};
constexpr milliseconds kLongestDelay{60'000};
constexpr std::chrono::seconds kLongRun{10};

/// The exit code of a container whose end nobody saw, because the machine or the shim went away.
constexpr int kUnknownExitCode = 255;

}  // namespace

void Lifecycle::spawn_supervisor(ContainerPtr container) {
  supervisors_->spawn("supervisor of " + container->name, supervise(container));
  supervisors_->spawn("out-of-memory watch of " + container->name, watch_oom(container, container->starts));
  if (on_started_) on_started_(container);
}

/// One run after another, until the container stays down.
Task<void> Lifecycle::supervise(ContainerPtr container) {
  const protocol::ExitRecord exit = co_await await_exit(container);
  co_await async::shielded(record_exit(container, exit));
  co_await async::shielded(release(container));
  if (container->state.restarting) {
    if (co_await restart_by_policy(container)) co_return;  // the new run has a supervisor of its own
  }
  if (container->host.AutoRemove && !container->manual_restart && !container->removing && !container->removed)
    co_await async::shielded(remove_after_exit(container));
}

/// How the run ended, also when its shim is gone.
Task<protocol::ExitRecord> Lifecycle::await_exit(ContainerPtr container) {
  const sys::Path directory = services_.paths.shim(container->id.str());
  if (container->shim) {
    runtime::ShimClient shim = container->live_shim();
    for (;;) {
      try {
        co_return co_await shim.wait();
      } catch (const Error& e) {
        if (e.code() == Errc::timed_out) continue;
        log::warning("container {}: its shim is gone: {}", container->name, e.message());
        break;
      }
    }
  }
  const auto left = co_await services_.lanes.quick.run([directory] { return runtime::read_exit_blocking(directory); });
  if (left) co_return *left;
  // Nobody reads its output or could tell how it ends: an orphan is worse than an end.
  co_await services_.lanes.quick.run(
      [host = &services_.host, group = cgroup_of(*container)] { sys::kill_cgroup(host->cgroup, group); });
  protocol::ExitRecord lost;
  lost.exit_code = kUnknownExitCode;
  lost.finished_ns = static_cast<std::int64_t>(now().time_since_epoch().count());
  co_return lost;
}

bool Lifecycle::wants_restart(const Container& container) const {
  const model::RestartPolicy& policy = container.host.RestartPolicy;
  if (container.on_exit == OnExit::stay_down || container.removing || container.manual_restart) return false;
  if (policy.Name == "always") return true;
  if (policy.Name == "unless-stopped") return !container.state.manually_stopped;
  if (policy.Name != "on-failure" || container.state.exit_code == 0) return false;
  return policy.MaximumRetryCount == 0 || container.state.restart_count < policy.MaximumRetryCount;
}

/// Makes the exit known. Addresses and ports are given back first, so that whoever waited can use them at once; all
/// that takes longer is left to release().
Task<void> Lifecycle::record_exit(ContainerPtr container, protocol::ExitRecord exit) {
  FAILPOINT("exit.before_network");
  try {
    co_await services_.networks.detach(container->id.str());
  } catch (const Error& e) {
    log::error("container {}: its network could not be taken down: {}", container->name, e.log_detail());
  }
  FAILPOINT("exit.before_row");
  ContainerState& state = container->state;
  const Timestamp finished{std::chrono::nanoseconds(exit.finished_ns)};
  state.exit_code = exit.exit_code;
  state.oom_killed = exit.oom_killed;
  state.finished = finished;
  state.pid = 0;
  state.paused = false;
  state.starting = false;
  const bool long_run = finished - state.started >= kLongRun;
  const milliseconds last(state.backoff_ms);
  state.restarting = wants_restart(*container);
  state.running = state.restarting;
  if (state.restarting)
    state.backoff_ms = long_run || last.count() == 0 ? kFirstDelay.count() : std::min(last * 2, kLongestDelay).count();
  container->releasing = true;
  container->shim.reset();
  co_await save_state_or_log(container);
  FAILPOINT("exit.after_row");
  const auto ran = std::chrono::duration_cast<std::chrono::seconds>(finished - state.started).count();
  publish(
      *container, "die",
      {{"exitCode", std::to_string(exit.exit_code)}, {"execDuration", std::to_string(std::max<std::int64_t>(ran, 0))}});
  ++container->exits;
  container->changed.notify();
}

/// Takes down what the run used. Whatever fails here is logged and found again by recover().
Task<void> Lifecycle::release(ContainerPtr container) {
  const std::string id = container->id.str();
  try {
    co_await remove_from_runtime(container);
    co_await services_.volumes.unmount_all(id);
    co_await services_.rootfs.unmount(container->id);
    co_await services_.lanes.quick.run(
        [shm = services_.paths.container_mounts() / id / "shm"] { sys::unmount_all(shm); });
  } catch (const Error& e) {
    log::error("container {}: its last run could not be taken down completely: {}", container->name, e.log_detail());
  }
  container->releasing = false;
  container->changed.notify();
}

/// Deletes the container from its OCI runtime, ends its shim and removes the shim's directory. Idempotent.
Task<void> Lifecycle::remove_from_runtime(ContainerPtr container) {
  const std::string id = container->id.str();
  const sys::Path directory = services_.paths.shim(id);
  bool shim_answered = false;
  try {
    runtime::ShimClient shim = co_await runtime::ShimClient::connect(directory);
    co_await shim.remove();
    co_await shim.shutdown();
    shim_answered = true;
  } catch (const Error& e) {
    log::debug("container {}: no answer from its shim: {}", container->name, e.message());
  }
  const protocol::ShimConfig config = shim_config(*container);
  co_await services_.lanes.quick.run_within(
      std::chrono::seconds(60),
      [shim_answered, directory, config, id, host = &services_.host, group = cgroup_of(*container)] {
        if (!shim_answered) {
          if (const auto pid = runtime::find_shim_blocking(directory)) {
            try {
              sys::send_signal(sys::open_pidfd(*pid).get(), 9);
            } catch (const Error&) {
              // gone meanwhile
            }
          }
          sys::SpawnOptions command;
          command.argv = {config.runtime_path, "--root", config.runtime_root};
          command.argv.insert(command.argv.end(), config.runtime_args.begin(), config.runtime_args.end());
          for (const char* word : {"delete", "--force"}) command.argv.emplace_back(word);
          command.argv.push_back(id);
          command.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
          (void)sys::run(std::move(command), 30);
          sys::kill_cgroup(host->cgroup, group);
        }
        sys::remove_tree(directory);
      });
}

/// Waits out the policy's delay and starts again. True if a new run began; false if the container stays down.
Task<bool> Lifecycle::restart_by_policy(ContainerPtr container) {
  const auto deadline = std::chrono::steady_clock::now() + milliseconds(container->state.backoff_ms);
  while (!container->cancel_restart && !container->removed) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) break;
    (void)co_await container->changed.wait_for(left);
  }
  std::exception_ptr failure;
  if (!container->cancel_restart && !container->removed) {
    auto lock = co_await container->mutex.lock("restart by policy");
    if (!container->cancel_restart && !container->removed) {
      ++container->state.restart_count;
      try {
        co_await async::shielded(start_locked(container));
        co_return true;
      } catch (const Error& e) {
        log::warning("container {}: its restart policy could not start it again: {}", container->name, e.message());
      }
    }
  }
  container->state.running = false;
  container->state.restarting = false;
  co_await async::shielded(save_state_or_log(container));
  container->changed.notify();
  co_return false;
}

Task<void> Lifecycle::remove_after_exit(ContainerPtr container) {
  RemoveOptions options;
  options.volumes = true;
  options.force = true;
  try {
    co_await containers_->remove_container(container, options);
  } catch (const Error& e) {
    // A client may have been faster.
    if (e.code() != Errc::conflict && e.code() != Errc::not_found)
      log::error("container {}: --rm could not remove it: {}", container->name, e.log_detail());
  }
}

/// Tells of processes that the kernel killed for want of memory, while the container runs on.
Task<void> Lifecycle::watch_oom(ContainerPtr container, std::uint64_t start) {
  std::uint64_t seen = 0;
  while (container->shim && container->starts == start) {
    runtime::ShimClient shim = container->live_shim();
    try {
      seen = co_await shim.wait_oom(seen);
    } catch (const Error&) {
      co_return;  // the run is over
    }
    publish(*container, "oom");
  }
}

}  // namespace gantry::engine
