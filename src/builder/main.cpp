#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <boost/json/string.hpp>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "builder/build_worker.hpp"
#include "builder/worker_process.hpp"
#include "json/json.hpp"
#include "protocol/build_link.hpp"
#include "sys/cgroup.hpp"

/// gantry-build: the process that builds. Started by gantryd (build/worker.hpp), of no use to anybody else.
namespace gantry {
namespace {

/// What cannot end in this time is left to the kernel: the process ends, and with it its mounts; the daemon kills what
/// is left in its control group.
constexpr unsigned kEndPatience = 4;

std::atomic<bool> g_ending = false;
bool g_json_log = false;

void to_spdlog(log::Level level, std::string_view message) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err, spdlog::level::off};
  const std::string quoted = g_json_log ? json::render(json::Value(boost::json::string(message))) : quote(message);
  spdlog::log(kLevels[static_cast<int>(level)], "{}", quoted);
}

/// Lines go to the daemon's own log, in its form.
void set_up_logging(bool json, std::string_view level) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("gantry-build"));
  g_json_log = json;
  if (json)
    spdlog::set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l","program":"gantry-build","msg":%v})",
                        spdlog::pattern_time_type::utc);
  else
    spdlog::set_pattern("time=%Y-%m-%dT%H:%M:%S.%fZ level=%l program=gantry-build msg=%v",
                        spdlog::pattern_time_type::utc);
  spdlog::set_level(spdlog::level::debug);
  log::set_level(level == "debug"                       ? log::Level::debug
                 : level == "warn"                      ? log::Level::warning
                 : level == "error" || level == "fatal" ? log::Level::error
                                                        : log::Level::info);
  log::set_sink(to_spdlog);
}

struct Flags {
  std::string cgroup;
  std::string log_format = "text";
  std::string log_level = "info";
};

Flags read_flags(int argc, char** argv) {
  Flags out;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--cgroup") out.cgroup = argv[i + 1];
    else if (name == "--log-format") out.log_format = argv[i + 1];
    else if (name == "--log-level") out.log_level = argv[i + 1];
  }
  if (out.cgroup.empty() || ::fcntl(protocol::kRequestsFd, F_GETFD) < 0)
    throw Error(Errc::invalid_argument, "gantry-build is started by gantryd and not by hand");
  return out;
}

void end(int) { g_ending = true; }
void leave_at_once(int) { ::_exit(1); }

void handle_signals() {
  struct sigaction action{};
  action.sa_handler = end;
  (void)::sigaction(SIGTERM, &action, nullptr);
  (void)::sigaction(SIGINT, &action, nullptr);
  action.sa_handler = leave_at_once;
  (void)::sigaction(SIGALRM, &action, nullptr);
  (void)::signal(SIGPIPE, SIG_IGN);
}

sys::Fd take_descriptor(int fd) {
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) throw Error::from_errno(errno, "the daemon's descriptor");
  return sys::Fd(fd);
}

int run(int argc, char** argv) {
  const Flags flags = read_flags(argc, argv);
  set_up_logging(flags.log_format == "json", flags.log_level);
  arm_failpoints_from_environment();
  handle_signals();
  sys::enter_cgroup(sys::probe_cgroups(), flags.cgroup);
  builder::enter_mount_namespace();
  auto worker = std::make_unique<builder::BuildWorker>(take_descriptor(protocol::kConnectionsFd),
                                                       take_descriptor(protocol::kRequestsFd));
  worker->run(g_ending);
  (void)::alarm(kEndPatience);
  worker.reset();  // builds that run are cancelled
  return 0;
}

}  // namespace
}  // namespace gantry

int main(int argc, char** argv) {
  // As gantryd: many threads, few arenas; what was needed once goes back to the kernel.
  (void)::mallopt(M_ARENA_MAX, 2);
  (void)::mallopt(M_MMAP_THRESHOLD, 128 << 10);
  (void)::mallopt(M_TRIM_THRESHOLD, 256 << 10);
  int status = 1;
  try {
    status = gantry::run(argc, argv);
  } catch (const gantry::Error& e) {
    std::fprintf(stderr, "gantry-build: %s\n", e.log_detail().c_str());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gantry-build: %s\n", e.what());
  }
  std::fflush(nullptr);
  ::_exit(status);
}
