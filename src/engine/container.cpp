#include "engine/container.hpp"

#include <fmt/format.h>

#include "engine/messages.hpp"

namespace gantry::engine {

std::string_view status_name(Status status) noexcept {
  switch (status) {
    case Status::created: return "created";
    case Status::running: return "running";
    case Status::paused: return "paused";
    case Status::restarting: return "restarting";
    case Status::removing: return "removing";
    case Status::exited: return "exited";
    case Status::dead: return "dead";
  }
  return "?";
}

Status Container::status() const noexcept {
  if (state.running) {
    if (state.paused) return Status::paused;
    return state.restarting ? Status::restarting : Status::running;
  }
  if (removing) return Status::removing;
  if (state.dead) return Status::dead;
  return state.started == Timestamp{} ? Status::created : Status::exited;
}

runtime::ShimClient Container::live_shim() const {
  if (!shim) throw container_not_running(id.str());
  return *shim;
}

const std::map<std::string, std::string>& Container::labels() const {
  static const std::map<std::string, std::string> kNone;
  return config.Labels ? *config.Labels : kNone;
}

std::string_view Container::health_text() const noexcept {
  if (!state.health) return "none";
  if (!state.running || state.restarting) return "unhealthy";
  switch (state.health->status) {
    case HealthStatus::starting: return "starting";
    case HealthStatus::healthy: return "healthy";
    case HealthStatus::unhealthy: return "unhealthy";
  }
  return "none";
}

std::string Container::status_text(Timestamp at) const {
  switch (status()) {
    case Status::paused: return fmt::format("Up {} (Paused)", render_human_duration(at - state.started));
    case Status::restarting:
      return fmt::format("Restarting ({}) {} ago", state.exit_code, render_human_duration(at - state.finished));
    case Status::running: {
      std::string text = "Up " + render_human_duration(at - state.started);
      if (!state.health) return text;
      const bool starting = state.health->status == HealthStatus::starting;
      return fmt::format("{} ({}{})", text, starting ? "health: " : "", health_text());
    }
    case Status::removing: return "Removal In Progress";
    case Status::dead: return "Dead";
    case Status::created: return "Created";
    case Status::exited:
      return fmt::format("Exited ({}) {} ago", state.exit_code, render_human_duration(at - state.finished));
  }
  return "";
}

}  // namespace gantry::engine
