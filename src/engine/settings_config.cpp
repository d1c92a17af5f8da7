#include <set>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/lifecycle.hpp"
#include "engine/settings.hpp"

namespace gantry::engine {
namespace {

using model::ContainerConfig;

[[noreturn]] void invalid(std::string text) { throw Error(Errc::invalid_argument, std::move(text)); }

void merge_env(ContainerConfig& config, const ContainerConfig& image) {
  if (!image.Env) return;
  std::vector<std::string> env = config.Env.value_or(std::vector<std::string>{});
  std::set<std::string, std::less<>> given;
  for (const std::string& entry : env) given.emplace(split_once(entry, '=').first);
  for (const std::string& entry : *image.Env)
    if (!given.contains(split_once(entry, '=').first)) env.push_back(entry);
  config.Env = std::move(env);
}

template <class Map, class From>
void merge_map(Map& into, const From& from) {
  if (!from || from->empty()) return;
  if (!into) into.emplace();
  for (const auto& [key, value] : *from) into->emplace(key, value);
}

void merge_command(ContainerConfig& config, const ContainerConfig& image) {
  const bool has_entrypoint = config.Entrypoint && !config.Entrypoint->empty();
  if (has_entrypoint && config.Entrypoint->size() == 1 && config.Entrypoint->front().empty()) {
    config.Entrypoint.reset();
    return;
  }
  if (has_entrypoint) return;
  if (!config.Cmd || config.Cmd->empty()) {
    config.Cmd = image.Cmd;
    config.ArgsEscaped = image.ArgsEscaped;
  }
  if (!config.Entrypoint) config.Entrypoint = image.Entrypoint;
}

void merge_health(ContainerConfig& config, const ContainerConfig& image) {
  if (!image.Healthcheck) return;
  if (!config.Healthcheck) {
    config.Healthcheck = image.Healthcheck;
    return;
  }
  model::HealthConfig& own = *config.Healthcheck;
  const model::HealthConfig& base = *image.Healthcheck;
  if (!own.Test || own.Test->empty()) own.Test = base.Test;
  const auto inherit = [](auto& to, const auto& from) {
    if (!to || *to == 0) to = from;
  };
  inherit(own.Interval, base.Interval);
  inherit(own.Timeout, base.Timeout);
  inherit(own.StartPeriod, base.StartPeriod);
  inherit(own.StartInterval, base.StartInterval);
  inherit(own.Retries, base.Retries);
}

/// A name that goes into /etc/hostname and /etc/hosts: no byte that could start another line or field.
void validate_host_word(std::string_view field, const std::string& value) {
  for (const char c : value)
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f)
      invalid(fmt::format("invalid {} {}: blanks and control characters are not allowed", field, quote(value)));
}

void validate_health(const model::HealthConfig& health) {
  const auto at_least_1ms = [](std::string_view name, const auto& value) {
    if (value && *value != 0 && *value < 1'000'000)
      invalid(fmt::format("{} in Healthcheck cannot be less than 1ms", name));
  };
  at_least_1ms("Interval", health.Interval);
  at_least_1ms("Timeout", health.Timeout);
  at_least_1ms("StartPeriod", health.StartPeriod);
  at_least_1ms("StartInterval", health.StartInterval);
  if (health.Retries && *health.Retries < 0) invalid("Retries in Healthcheck cannot be negative");
  if (health.Test && !health.Test->empty()) {
    const std::string& kind = health.Test->front();
    if (kind != "NONE" && kind != "CMD" && kind != "CMD-SHELL")
      invalid(fmt::format("unknown type {} in Healthcheck: use one of NONE, CMD, CMD-SHELL", quote(kind)));
  }
}

}  // namespace

void merge_image_config(ContainerConfig& config, const ContainerConfig& image) {
  if (config.User.empty()) config.User = image.User;
  if (config.WorkingDir.empty()) config.WorkingDir = image.WorkingDir;
  if (!config.StopSignal || config.StopSignal->empty()) config.StopSignal = image.StopSignal;
  if (!config.Shell || config.Shell->empty()) config.Shell = image.Shell;
  merge_env(config, image);
  merge_map(config.ExposedPorts, image.ExposedPorts);
  merge_map(config.Volumes, image.Volumes);
  merge_map(config.Labels, image.Labels);
  merge_command(config, image);
  merge_health(config, image);
  if (!config.Labels) config.Labels.emplace();
}

void validate_config(const ContainerConfig& config) {
  const bool has_entrypoint = config.Entrypoint && !config.Entrypoint->empty();
  const bool has_command = config.Cmd && !config.Cmd->empty();
  if (!has_entrypoint && !has_command) invalid("no command specified");
  if (!config.WorkingDir.empty() && config.WorkingDir.front() != '/')
    invalid(fmt::format("the working directory '{}' is invalid, it needs to be an absolute path", config.WorkingDir));
  // sethostname(2): at most 64 bytes.
  if (config.Hostname.size() > 64)
    invalid(fmt::format("hostname {} is too long (maximum 64 bytes)", quote(config.Hostname)));
  validate_host_word("Hostname", config.Hostname);
  validate_host_word("Domainname", config.Domainname);
  if (config.Env)
    for (const std::string& entry : *config.Env) {
      if (entry.empty() || entry.front() == '=') invalid(fmt::format("invalid environment variable: {}", entry));
      if (entry.find('\0') != std::string::npos) invalid("invalid environment variable: it contains a NUL byte");
    }
  for (const json::StringList* words : {&config.Entrypoint, &config.Cmd})
    if (*words)
      for (const std::string& word : **words)
        if (word.find('\0') != std::string::npos) invalid("invalid command: an argument contains a NUL byte");
  if (config.StopSignal && !config.StopSignal->empty()) (void)parse_signal(*config.StopSignal);
  if (config.StopTimeout && *config.StopTimeout < -1)
    invalid("invalid StopTimeout: it is -1, 0 or a number of seconds");
  if (config.Healthcheck) validate_health(*config.Healthcheck);
}

}  // namespace gantry::engine
