#include <cstdio>
#include <exception>
#include <string>

#include <sys/resource.h>
#include <malloc.h>
#include <unistd.h>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <boost/json/string.hpp>

#include "app.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "config/load.hpp"
#include "doctor/checks.hpp"
#include "json/json.hpp"
#include "repair_command.hpp"
#include "runtime/host_facts.hpp"
#include "sys/paths.hpp"

namespace gantry {
namespace {

bool g_json_log = false;

/// Messages carry what clients sent: quoted, so that nobody can write a line of his own into the log.
void to_spdlog(log::Level level, std::string_view message) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err, spdlog::level::off};
  const std::string quoted = g_json_log ? json::render(json::Value(boost::json::string(message))) : quote(message);
  spdlog::log(kLevels[static_cast<int>(level)], "{}", quoted);
}

log::Level parse_level(const config::Config& config) {
  if (config.debug || config.log_level == "debug") return log::Level::debug;
  if (config.log_level == "warn") return log::Level::warning;
  if (config.log_level == "error" || config.log_level == "fatal") return log::Level::error;
  return log::Level::info;
}

void set_up_logging(const config::Config& config) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("gantryd"));
  g_json_log = config.log_format == "json";
  if (g_json_log)
    spdlog::set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l","msg":%v})", spdlog::pattern_time_type::utc);
  else spdlog::set_pattern("time=%Y-%m-%dT%H:%M:%S.%fZ level=%l msg=%v", spdlog::pattern_time_type::utc);
  spdlog::set_level(spdlog::level::debug);
  log::set_level(parse_level(config));
  log::set_sink(to_spdlog);
}

/// Every published port and client is a descriptor.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

int run_doctor(const config::Config& config) {
  std::vector<doctor::Finding> findings = doctor::check_host(runtime::probe_host());
  for (doctor::Finding& finding : doctor::check_network_blocking(config)) findings.push_back(std::move(finding));
  sys::Paths paths;
  paths.data_root = config.data_root;
  paths.exec_root = config.exec_root;
  for (doctor::Finding& finding : doctor::check_state_blocking(paths)) findings.push_back(std::move(finding));
  std::fputs(doctor::render_report(findings).c_str(), stdout);
  return doctor::exit_code(findings);
}

int run(int argc, char** argv) {
  config::ParsedCommandLine command_line = config::parse_command_line(argc, argv);
  switch (command_line.action) {
    case config::Action::print:
      std::fputs(command_line.text.c_str(), command_line.exit_code == 0 ? stdout : stderr);
      return command_line.exit_code;
    case config::Action::validate: {
      const config::ValidateReport report = config::validate(command_line, config::probe_host());
      std::fputs((report.text + "\n").c_str(), stderr);
      return report.exit_code;
    }
    case config::Action::show_config: {
      const config::LoadResult loaded = config::load(command_line, config::probe_host());
      std::fputs((config::render_config(loaded) + "\n").c_str(), stdout);
      return 0;
    }
    case config::Action::doctor: return run_doctor(config::load(command_line, config::probe_host()).config);
    case config::Action::repair: {
      const config::LoadResult repaired = config::load(command_line, config::probe_host());
      return run_repair(repaired.config, !command_line.arguments.empty());
    }
    case config::Action::run: break;
  }
  config::LoadResult loaded = config::load(command_line, config::probe_host());
  set_up_logging(loaded.config);
  for (const config::Problem& problem : loaded.problems) log::warning("{}", config::render_problem(problem));
  for (const std::string& note : loaded.notes) log::info("{}", note);
  if (!loaded.usable()) {
    std::fputs((loaded.fatal_text() + "\n").c_str(), stderr);
    return 1;
  }
  raise_descriptor_limit();
  arm_failpoints_from_environment();
  App app(std::move(command_line), std::move(loaded));
  return app.run();
}

}  // namespace
}  // namespace gantry

int main(int argc, char** argv) {
  // Some thirty threads take turns: an arena for each would keep memory for nothing. Buffers are mapped one by one and
  // go back when they are freed; left alone, malloc raises that bound to 32 MiB, and what 600 clients needed once stays.
  (void)::mallopt(M_ARENA_MAX, 2);
  (void)::mallopt(M_MMAP_THRESHOLD, 128 << 10);
  (void)::mallopt(M_TRIM_THRESHOLD, 256 << 10);
  int status = 1;
  try {
    status = gantry::run(argc, argv);
  } catch (const gantry::Error& e) {
    std::fprintf(stderr, "failed to start daemon: %s\n", e.what());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "failed to start daemon: %s\n", e.what());
  }
  // A lane may still hang in the kernel (a dead network file system): do not wait for its thread.
  std::fflush(nullptr);
  ::_exit(status);
}
