#include <csignal>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/lifecycle.hpp"
#include "engine/messages.hpp"
#include "sys/cgroup.hpp"

namespace gantry::engine {
namespace {

/// After SIGKILL: how long the kernel and the shim may take before the next harder measure.
constexpr std::chrono::seconds kKillPatience{10};
constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 365);

}  // namespace

int Lifecycle::stop_signal(const Container& container, const std::string& wanted) const {
  if (!wanted.empty()) return parse_signal(wanted);
  const std::string configured = container.config.StopSignal.value_or("");
  return configured.empty() ? SIGTERM : parse_signal(configured);
}

/// Waits until no start or removal is under way, without keeping the mutex.
Task<void> Lifecycle::take_turn(ContainerPtr container, std::string verb) {
  auto lock = co_await container->mutex.lock(std::move(verb));
  if (container->removed) throw no_such_container(container->id.str());
}

Task<bool> Lifecycle::wait_until_down(ContainerPtr container, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (container->state.running) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) co_return false;
    (void)co_await container->changed.wait_for(left);
  }
  co_return true;
}

Task<void> Lifecycle::wait_until_released(ContainerPtr container) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (container->releasing) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0))
      throw Error(Errc::timed_out,
                  fmt::format("the last run of container {} is still being taken down", container->name));
    (void)co_await container->changed.wait_for(left);
  }
}

/// To the main process; a frozen one gets it when it is thawed.
Task<void> Lifecycle::send_signal(ContainerPtr container, int signal) {
  if (!container->shim) co_return;
  runtime::ShimClient shim = container->live_shim();
  try {
    co_await shim.kill(signal);
  } catch (const Error& e) {
    // It ended by itself in the meantime.
    if (e.code() != Errc::conflict && e.code() != Errc::not_found) throw;
    co_return;
  }
  publish(*container, "kill", {{"signal", std::to_string(signal)}});
}

Task<void> Lifecycle::stop(std::string reference, std::optional<std::chrono::seconds> timeout, std::string signal) {
  ContainerPtr container = store_.get(reference);
  const int number = stop_signal(*container, signal);
  co_await take_turn(container, "stop");
  if (!container->state.running) throw Error(Errc::not_modified, "container is not running");
  try {
    co_await async::shielded(stop_container(container, timeout, number));
  } catch (Error& e) {
    e.prefix("cannot stop container: " + reference);
    throw;
  }
  publish(*container, "stop");
}

Task<void> Lifecycle::stop_container(ContainerPtr container, std::optional<std::chrono::seconds> timeout, int signal) {
  const std::int64_t own = container->config.StopTimeout.value_or(services_.config.default_stop_timeout);
  const std::int64_t seconds = timeout ? timeout->count() : own;
  const std::chrono::milliseconds grace = seconds < 0 ? kForever : std::chrono::milliseconds(seconds * 1000);
  container->on_exit = OnExit::stay_down;
  container->state.manually_stopped = true;
  co_await save_state_or_log(container);
  FAILPOINT("stop.after_row");
  if (container->state.restarting) {
    container->cancel_restart = true;
    container->changed.notify();
    co_await wait_until_down(container, kKillPatience);
    co_return;
  }
  const bool paused = container->state.paused;
  co_await send_signal(container, signal);
  if (paused && container->shim) {
    runtime::ShimClient shim = container->live_shim();
    co_await shim.resume();
    container->state.paused = false;
  }
  if (co_await wait_until_down(container, grace)) co_return;
  co_await kill_and_wait(container);
}

Task<void> Lifecycle::kill_and_wait(ContainerPtr container) {
  container->on_exit = OnExit::stay_down;
  container->state.manually_stopped = true;
  container->cancel_restart = true;
  container->changed.notify();
  if (container->state.restarting) {
    if (co_await wait_until_down(container, kKillPatience)) co_return;
  } else {
    try {
      co_await send_signal(container, SIGKILL);
      if (container->state.paused && container->shim) {
        runtime::ShimClient shim = container->live_shim();
        co_await shim.resume();
      }
    } catch (const Error& e) {
      // The shim does not answer: its container's control group is killed without it below.
      log::warning("container {}: {}", container->name, e.message());
    }
    if (co_await wait_until_down(container, kKillPatience)) co_return;
  }
  log::warning("container {} did not end after SIGKILL within {} s: killing its control group", container->name,
               kKillPatience.count());
  co_await services_.lanes.quick.run(
      [host = &services_.host, group = cgroup_of(*container)] { sys::kill_cgroup(host->cgroup, group); });
  if (co_await wait_until_down(container, kKillPatience)) co_return;
  throw Error(Errc::internal, fmt::format("container {} did not end after SIGKILL: a process in it is stuck in the "
                                          "kernel, or its shim does not run",
                                          container->id.str()));
}

Task<void> Lifecycle::kill(std::string reference, std::string signal) {
  ContainerPtr container;
  try {
    container = store_.get(reference);
    const int number = signal.empty() ? SIGKILL : parse_signal(signal);
    co_await take_turn(container, "kill");
    if (!container->state.running) throw container_not_running(container->id.str());
    const std::string configured = container->config.StopSignal.value_or("");
    if (configured.empty() || number == SIGKILL || number == parse_signal(configured))
      container->on_exit = OnExit::stay_down;
    container->state.manually_stopped = true;
    co_await save_state_or_log(container);
    if (container->state.restarting || number == SIGKILL) {
      co_await async::shielded(kill_and_wait(container));
      co_return;
    }
    co_await send_signal(container, number);
  } catch (Error& e) {
    if (e.code() != Errc::invalid_argument) e.prefix("cannot kill container: " + reference);
    throw;
  }
}

Task<void> Lifecycle::restart(std::string reference, std::optional<std::chrono::seconds> timeout, std::string signal) {
  ContainerPtr container = store_.get(reference);
  const int number = stop_signal(*container, signal);
  co_await take_turn(container, "restart");
  container->manual_restart = true;
  std::exception_ptr failure;
  try {
    if (container->state.running) {
      co_await async::shielded(stop_container(container, timeout, number));
      publish(*container, "stop");
    }
    auto lock = co_await container->mutex.lock("restart");
    if (container->removed) throw no_such_container(reference);
    if (!container->state.running) {
      container->state.manually_stopped = false;
      container->state.restart_count = 0;
      container->state.backoff_ms = 0;
      co_await async::shielded(start_locked(container));
    }
  } catch (Error& e) {
    e.prefix("Cannot restart container " + reference);
    failure = std::current_exception();
  } catch (...) {
    failure = std::current_exception();
  }
  container->manual_restart = false;
  if (failure) std::rethrow_exception(failure);
  publish(*container, "restart");
}

}  // namespace gantry::engine
