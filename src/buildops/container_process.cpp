#include "buildops/container_process.hpp"

#include <csignal>

#include <poll.h>

#include "base/error.hpp"
#include "buildops/program.hpp"

namespace gantry::buildops {
namespace {

constexpr int kRemoveSeconds = 30;
constexpr int kRemoveAttempts = 40;
constexpr int kRemovePause = 25;  // ms
/// How long a killed container may take to be gone before the runtime itself is killed.
constexpr std::chrono::milliseconds kPatience{300};

sys::SpawnOptions command(const ContainerRun& run, const std::vector<std::string>& args) {
  sys::SpawnOptions options;
  options.argv = {run.runtime, "--root", run.state_directory.string(), "--log-format", "json"};
  if (!run.bundle.empty()) options.argv.insert(options.argv.end(), {"--log", (run.bundle / "runtime.log").string()});
  options.argv.insert(options.argv.end(), run.runtime_args.begin(), run.runtime_args.end());
  options.argv.insert(options.argv.end(), args.begin(), args.end());
  options.env = own_environment({"PATH", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"});
  return options;
}

}  // namespace

int run_container(const ContainerRun& run, solver::Progress& progress, const sys::CgroupLayout& cgroups,
                  std::stop_token stop) {
  ProgramHooks hooks;
  hooks.output = [&](int stream, std::string_view bytes) { progress.log(stream, bytes); };
  hooks.kill = [&](const sys::Child& child, std::chrono::milliseconds since) {
    sys::kill_cgroup(cgroups, run.cgroup);
    // The runtime itself may hang, or has not come so far as to make the group.
    if (since > kPatience) (void)::kill(-child.pid, SIGKILL);
  };
  try {
    return run_program(command(run, {"run", "--bundle", run.bundle.string(), run.id}), hooks, stop);
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) remove_container(run, cgroups);
    throw;
  }
}

void remove_container(const ContainerRun& run, const sys::CgroupLayout& cgroups) {
  sys::kill_cgroup(cgroups, run.cgroup);
  if (std::filesystem::exists(run.state_directory / run.id))
    (void)sys::run(command(run, {"delete", "--force", run.id}), kRemoveSeconds);
  for (int attempt = 0; attempt < kRemoveAttempts && !sys::remove_cgroup(cgroups, run.cgroup); ++attempt) {
    sys::kill_cgroup(cgroups, run.cgroup);
    (void)::poll(nullptr, 0, kRemovePause);
  }
}

}  // namespace gantry::buildops
