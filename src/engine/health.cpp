#include "engine/health.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "async/timeout.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/splice.hpp"

namespace gantry::engine {
namespace {

using std::chrono::nanoseconds;

constexpr std::size_t kMostOutput = 4096;
constexpr std::size_t kMostResults = 5;
constexpr int kNoExitCode = -1;
/// What a killed check may take to be gone.
constexpr std::chrono::seconds kKillPatience{10};

nanoseconds or_default(const json::Omit<std::int64_t>& configured, nanoseconds fallback) {
  const std::int64_t value = configured ? *configured : 0;
  return value == 0 ? fallback : nanoseconds(value);
}

bool same_run(const Container& container, std::uint64_t run) {
  return container.shim.has_value() && container.starts == run && !container.removed;
}

Task<void> collect_output(Execs::StreamPtr stream, std::shared_ptr<HealthOutput> output) {
  FrameStripper stripper;
  std::string piece;
  for (;;) {
    piece.resize(kMostOutput);
    piece.resize(co_await stream->read(piece.data(), piece.size()));
    if (piece.empty()) co_return;
    output->add(stripper.feed(piece));
  }
}

HealthResult failed(Timestamp start, std::string why) { return {start, now(), kNoExitCode, std::move(why)}; }

}  // namespace

std::optional<HealthCheck> read_health_check(const model::ContainerConfig& config) {
  if (!config.Healthcheck || !config.Healthcheck->Test || config.Healthcheck->Test->empty()) return std::nullopt;
  const model::HealthConfig& wanted = *config.Healthcheck;
  const std::vector<std::string>& test = *wanted.Test;
  HealthCheck check;
  if (test.front() == "CMD-SHELL") {
    if (config.Shell && !config.Shell->empty()) check.command = *config.Shell;
    else check.command = {"/bin/sh", "-c"};
  } else if (test.front() != "CMD") {
    return std::nullopt;
  }
  check.command.insert(check.command.end(), test.begin() + 1, test.end());
  if (check.command.empty()) return std::nullopt;
  check.interval = or_default(wanted.Interval, std::chrono::seconds(30));
  check.timeout = or_default(wanted.Timeout, std::chrono::seconds(30));
  check.start_period = or_default(wanted.StartPeriod, nanoseconds(0));
  // Docker's default is five seconds, also for one that is otherwise checked more often: then it would be noticed later
  // while it comes up than afterwards.
  check.start_interval =
      or_default(wanted.StartInterval, std::min<nanoseconds>(std::chrono::seconds(5), check.interval));
  check.retries = wanted.Retries && *wanted.Retries > 0 ? *wanted.Retries : 3;
  return check;
}

nanoseconds HealthCheck::delay(const HealthState& health, Timestamp at) const {
  const bool coming_up = health.status == HealthStatus::starting && at - health.run < start_period;
  return coming_up ? start_interval : interval;
}

void HealthCheck::apply(HealthState& health, HealthResult result) const {
  const bool good = result.exit_code == 0;
  const bool excused = health.status == HealthStatus::starting && result.start - health.run < start_period;
  if (health.log.size() >= kMostResults)
    health.log.erase(health.log.begin(),
                     health.log.begin() + static_cast<std::ptrdiff_t>(health.log.size() + 1 - kMostResults));
  health.log.push_back(std::move(result));
  if (good) {
    health.failing_streak = 0;
    health.status = HealthStatus::healthy;
  } else if (!excused) {
    ++health.failing_streak;
    if (health.failing_streak >= retries) health.status = HealthStatus::unhealthy;
  }
}

void HealthOutput::add(std::string_view bytes) {
  const std::size_t room = kMostOutput - kept_.size();
  truncated_ = truncated_ || bytes.size() > room;
  kept_.append(bytes.substr(0, room));
}

std::string HealthOutput::text() const { return replace_invalid_utf8(kept_) + (truncated_ ? "..." : ""); }

void Health::begin(ContainerPtr container) {
  std::optional<HealthCheck> check = read_health_check(container->config);
  if (!check) {
    container->state.health.reset();
    return;
  }
  auto& health = container->state.health;
  if (!health || health->run != container->state.started) {
    if (!health) health.emplace();
    health->run = container->state.started;
    health->status = HealthStatus::starting;
    health->failing_streak = 0;
  }
  tasks_.spawn("health checks of " + container->name, monitor(container, std::move(*check)));
}

Task<void> Health::stop() {
  tasks_.cancel();
  co_await tasks_.join();
}

/// One check after another, until the run ends.
Task<void> Health::monitor(ContainerPtr container, HealthCheck check) {
  const std::uint64_t run = container->starts;
  try {
    co_await execs_.kill_old_probes(container);
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    log::debug("health checks of {}: {}", container->name, e.message());
  }
  for (;;) {
    co_await wait_until_due(container, run, check);
    if (!same_run(*container, run)) co_return;
    HealthResult result = co_await probe(container, check);
    // What is found out about a container that is ending is of no use, nor is what pausing broke.
    if (!same_run(*container, run)) co_return;
    if (container->state.paused && result.exit_code != 0) continue;
    co_await record(container, check, std::move(result));
  }
}

/// Counts from the last check, or from the start: so a daemon that comes back after a while checks at once.
Task<void> Health::wait_until_due(ContainerPtr container, std::uint64_t run, HealthCheck check) {
  const HealthState& health = *container->state.health;
  const nanoseconds delay = check.delay(health, now());
  const Timestamp last = health.log.empty() ? health.run : std::max(health.run, health.log.back().end);
  auto due = std::chrono::steady_clock::now() + std::clamp<nanoseconds>(last + delay - now(), nanoseconds(0), delay);
  while (same_run(*container, run)) {
    if (container->state.paused) {
      co_await container->changed.wait();
      due = std::chrono::steady_clock::now() + check.delay(health, now());
      continue;
    }
    const auto rest = due - std::chrono::steady_clock::now();
    if (rest <= nanoseconds(0)) co_return;
    (void)co_await container->changed.wait_for(rest);
  }
}

Task<HealthResult> Health::probe(ContainerPtr container, HealthCheck check) {
  const Timestamp start = now();
  ExecPtr exec;
  std::string why;
  try {
    exec = co_await execs_.create_probe(container, check.command);
    HealthResult result = co_await run_probe(container, exec, check);
    result.start = start;
    execs_.forget(*exec);
    co_return result;
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    why = e.message();
  }
  if (exec) execs_.forget(*exec);
  log::debug("health check of {}: {}", container->name, why);
  co_return failed(start, replace_invalid_utf8(why));
}

Task<HealthResult> Health::run_probe(ContainerPtr container, ExecPtr exec, HealthCheck check) {
  using std::chrono::ceil;
  using std::chrono::milliseconds;
  // Not part of the check's own time: what the runtime takes to get it going. The shim bounds that.
  Execs::StreamPtr stream = co_await execs_.start_attached(exec);
  auto output = std::make_shared<HealthOutput>();
  bool late = true;
  while (late) {
    try {
      co_await async::with_timeout(collect_output(stream, output), ceil<milliseconds>(check.timeout), "health check");
      late = false;
    } catch (const Error& e) {
      if (e.code() != Errc::timed_out) throw;
    }
    if (!late || !container->state.paused) break;
    // It did not have its time.
    while (container->state.paused) co_await container->changed.wait();
  }
  if (late) co_await execs_.kill_tree(exec);
  co_await async::with_timeout(execs_.wait_end(exec), kKillPatience, "end of a health check");
  stream->close();
  if (!late) co_return HealthResult{{}, now(), *exec->exit_code, output->text()};
  std::string text = fmt::format("Health check exceeded timeout ({})", render_go_duration(check.timeout));
  if (const std::string printed = output->text(); !printed.empty()) text += ": " + printed;
  co_return failed({}, std::move(text));
}

/// A healthy container's checks change nothing, and write nothing.
Task<void> Health::record(ContainerPtr container, HealthCheck check, HealthResult result) {
  HealthState& health = *container->state.health;
  const HealthStatus old_status = health.status;
  const std::int64_t old_streak = health.failing_streak;
  check.apply(health, std::move(result));
  const bool status_changed = health.status != old_status;
  if (status_changed || (health.failing_streak != old_streak && health.failing_streak <= check.retries)) {
    try {
      co_await async::shielded(store_.save_state(container));
    } catch (const Error& e) {
      log::warning("container {}: its health could not be written: {}", container->name, e.log_detail());
    }
  }
  if (status_changed) lifecycle_.publish(*container, fmt::format("health_status: {}", container->health_text()));
  container->changed.notify();
}

}  // namespace gantry::engine
