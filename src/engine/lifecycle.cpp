#include "engine/lifecycle.hpp"

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/log.hpp"
#include "engine/messages.hpp"
#include "runtime/limits.hpp"

namespace gantry::engine {

Lifecycle::Lifecycle(Services& services, ContainerStore& store)
    : services_(services), store_(store), supervisors_(std::make_unique<async::TaskGroup>(services.loop)) {}

Lifecycle::~Lifecycle() = default;

void Lifecycle::publish(const Container& container, std::string action, std::map<std::string, std::string> extra) {
  std::map<std::string, std::string> attributes = container.labels();
  attributes["image"] = container.image_ref;
  attributes["name"] = container.name;
  attributes.merge(extra);
  services_.events.publish("container", std::move(action), container.id.str(), std::move(attributes));
}

std::string Lifecycle::cgroup_of(const Container& container) const {
  return runtime::cgroup_directory(container.cgroup_parent(services_.config.cgroup_parent), container.id.str(),
                                   services_.config.systemd_cgroups());
}

/// A state that could not be written is written by the next change, or found out anew by recover(): what runs is never
/// stopped because the disk is full.
Task<void> Lifecycle::save_state_or_log(ContainerPtr container) {
  try {
    co_await async::shielded(store_.save_state(container));
  } catch (const Error& e) {
    log::error("container {}: its state could not be written: {}", container->name, e.log_detail());
  }
}

Task<void> Lifecycle::pause(std::string reference) {
  ContainerPtr container = store_.get(reference);
  auto lock = co_await container->mutex.lock("pause");
  const std::string id = container->id.str();
  if (!container->state.running) throw container_not_running(id);
  if (container->state.paused) throw container_already_paused(id);
  if (container->state.restarting || !container->shim) throw container_is_restarting(id);
  co_await container->shim->pause();
  container->state.paused = true;
  co_await save_state_or_log(container);
  publish(*container, "pause");
  container->changed.notify();
}

Task<void> Lifecycle::unpause(std::string reference) {
  ContainerPtr container = store_.get(reference);
  auto lock = co_await container->mutex.lock("unpause");
  const std::string id = container->id.str();
  if (!container->state.running || !container->state.paused || !container->shim) throw container_not_paused(id);
  co_await container->shim->resume();
  container->state.paused = false;
  co_await save_state_or_log(container);
  publish(*container, "unpause");
  container->changed.notify();
}

Task<void> Lifecycle::resize(std::string reference, std::uint16_t rows, std::uint16_t columns) {
  ContainerPtr container = store_.get(reference);
  if (!container->state.running || !container->shim) throw container_not_running(container->id.str());
  runtime::ShimClient shim = container->live_shim();
  co_await shim.resize(rows, columns);
  publish(*container, "resize", {{"height", std::to_string(rows)}, {"width", std::to_string(columns)}});
}

WaitTicket Lifecycle::begin_wait(const std::string& reference, WaitCondition condition) {
  WaitTicket ticket;
  ticket.container = store_.get(reference);
  ticket.condition = condition;
  ticket.exits_before = ticket.container->exits;
  return ticket;
}

Task<WaitResult> Lifecycle::finish_wait(WaitTicket ticket) {
  ContainerPtr container = ticket.container;
  const auto over = [&ticket, &container] {
    switch (ticket.condition) {
      case WaitCondition::not_running: return !container->state.running || container->exits > ticket.exits_before;
      case WaitCondition::next_exit: return container->exits > ticket.exits_before;
      case WaitCondition::removed: return !container->removal_error.empty();
    }
    return true;
  };
  while (!container->removed && !over()) co_await container->changed.wait();
  WaitResult result;
  result.exit_code = container->state.exit_code;
  // A start that failed was told to whoever asked for it; waiting for the removal is about the removal.
  result.error = ticket.condition == WaitCondition::removed ? container->removal_error : container->state.error;
  co_return result;
}

Task<void> Lifecycle::stop_supervising() {
  supervisors_->cancel();
  co_await supervisors_->join();
}

}  // namespace gantry::engine
