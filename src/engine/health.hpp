#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "async/task.hpp"
#include "async/task_group.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/exec.hpp"
#include "engine/lifecycle.hpp"
#include "engine/services.hpp"

namespace gantry::engine {

/// A container's health check with every default filled in.
struct HealthCheck {
  std::vector<std::string> command;
  std::chrono::nanoseconds interval{};
  std::chrono::nanoseconds timeout{};
  std::chrono::nanoseconds start_period{};
  std::chrono::nanoseconds start_interval{};
  std::int64_t retries = 0;

  /// The delay after a check: shorter while the container is still coming up.
  std::chrono::nanoseconds delay(const HealthState& health, Timestamp at) const;
  /// Docker's arithmetic: adds the result to the log and moves the streak and the status.
  void apply(HealthState& health, HealthResult result) const;
};
/// nullopt: none is configured, or "NONE".
std::optional<HealthCheck> read_health_check(const model::ContainerConfig& config);

/// Keeps what a check prints: the first 4096 bytes, and that there was more.
class HealthOutput {
 public:
  void add(std::string_view bytes);
  /// As UTF-8.
  std::string text() const;

 private:
  std::string kept_;
  bool truncated_ = false;
};

/// Checks the health of running containers: one coroutine for each that has a check, from its start to its exit. A
/// paused container is not checked. The last status survives the daemon, and the checks go on with the next one.
class Health {
 public:
  Health(Services& services, ContainerStore& store, Lifecycle& lifecycle, Execs& execs)
      : store_(store), lifecycle_(lifecycle), execs_(execs), tasks_(services.loop) {}

  /// For Lifecycle::on_started.
  void begin(ContainerPtr container);
  Task<void> stop();

 private:
  Task<void> monitor(ContainerPtr container, HealthCheck check);
  Task<void> wait_until_due(ContainerPtr container, std::uint64_t run, HealthCheck check);
  Task<HealthResult> probe(ContainerPtr container, HealthCheck check);
  Task<HealthResult> run_probe(ContainerPtr container, ExecPtr exec, HealthCheck check);
  Task<void> record(ContainerPtr container, HealthCheck check, HealthResult result);

  ContainerStore& store_;
  Lifecycle& lifecycle_;
  Execs& execs_;
  async::TaskGroup tasks_;
};

}  // namespace gantry::engine
