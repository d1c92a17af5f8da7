#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "runtime/sealed_program.hpp"
#include "runtime/shim_client.hpp"
#include "sys/process.hpp"

namespace gantry::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Everything until the writer closes, or what came before `deadline`; nullopt then.
std::optional<std::string> read_until_closed(int fd, steady_clock::time_point deadline) {
  std::string text;
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now()).count();
    pollfd entry{fd, POLLIN, 0};
    if (left <= 0) return std::nullopt;
    if (::poll(&entry, 1, static_cast<int>(left)) <= 0) continue;
    char buffer[4096];
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || text.size() > (64 << 10)) return text;
    text.append(buffer, static_cast<std::size_t>(got));
  }
}

std::vector<std::string> shim_environment() {
  std::vector<std::string> env;
  // runc does little beside waiting for its children: with more threads it is a quarter slower (bench create+start).
  env.emplace_back("GOMAXPROCS=1");
  for (const char* name : {"PATH", "GANTRY_FAILPOINTS", "GODEBUG", "LD_LIBRARY_PATH"})
    if (const char* value = std::getenv(name)) env.push_back(std::string(name) + "=" + value);
  if (std::getenv("PATH") == nullptr)
    env.emplace_back("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  return env;
}

/// gantry-log stands beside the shim; in a build tree it is in its own module's directory.
std::string find_log_program(const sys::Path& shim_program) {
  const sys::Path here = shim_program.parent_path();
  for (const sys::Path& path : {here / "gantry-log", here / "../logdriver/gantry-log"})
    if (::access(path.c_str(), X_OK) == 0) return std::filesystem::absolute(path).lexically_normal().string();
  return "";
}

/// From a copy in memory, which is made again if somebody managed to make it useless.
sys::Child spawn_sealed(sys::SpawnOptions options, const sys::Path& program) {
  static SealedPrograms programs;
  for (bool again = false;; again = true) {
    options.program = programs.path_of(program);
    try {
      return sys::spawn(options);
    } catch (const Error&) {
      if (again) throw;
      programs.forget(program);
    }
  }
}

}  // namespace

void spawn_shim_blocking(const sys::Path& shim_program, const sys::Path& dir, const ShimConfig& config,
                         milliseconds limit, const std::vector<int>& sockets) {
  const auto deadline = steady_clock::now() + limit;
  (void)protocol::parse_config(protocol::render_config(config));  // refuse here what the shim would refuse
  sys::make_directories(dir, 0700);
  for (const char* name : {"socket", "exit", "pid", "init.pid"}) ::unlink((dir / name).c_str());
  ShimConfig complete = config;
  if (complete.log_program.empty()) complete.log_program = find_log_program(shim_program);
  sys::write_atomically(dir / "config", protocol::render_config(complete), 0600, false);
  FAILPOINT("shim.spawn.after_config");
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
  const sys::Fd ready(fds[0]);
  sys::Fd shim_end(fds[1]);
  sys::SpawnOptions options;
  options.argv = {shim_program.string(), "--dir", std::filesystem::absolute(dir).string(), "--ready-fd", "3"};
  options.env = shim_environment();
  options.pass_fds = {shim_end.get()};
  options.pass_fds.insert(options.pass_fds.end(), sockets.begin(), sockets.end());
  const sys::Child child = spawn_sealed(std::move(options), shim_program);
  shim_end.reset();
  // What we have started makes the real shim and ends at once; only that one keeps the pipe.
  const auto told = read_until_closed(ready.get(), deadline);
  while (::waitpid(child.pid, nullptr, told ? 0 : WNOHANG) < 0 && errno == EINTR) {
  }
  if (!told) throw Error(Errc::timed_out, "the container's shim did not start in time");
  FAILPOINT("shim.spawn.after_start");
  if (*told == "ok\n") return;
  const std::string_view reason = trim(*told);
  throw Error(Errc::internal, "start shim: " + (reason.empty() ? "it ended at once" : std::string(reason)));
}

std::optional<ExitRecord> read_exit_blocking(const sys::Path& dir) {
  const auto text = sys::find_file(dir / "exit", 4096);
  return text ? protocol::parse_exit(*text) : std::nullopt;
}

std::optional<pid_t> find_shim_blocking(const sys::Path& dir) {
  const auto text = sys::find_file(dir / "pid", 64);
  const auto pid = text ? parse_int(trim(*text)) : std::nullopt;
  if (!pid || *pid <= 0) return std::nullopt;
  // Pids are used again: it must have been started for this directory.
  const auto command = sys::try_read_small("/proc/" + std::to_string(*pid) + "/cmdline");
  const std::string expected = std::string("--dir") + '\0' + std::filesystem::absolute(dir).string() + '\0';
  if (!command || command->find(expected) == std::string::npos) return std::nullopt;
  return static_cast<pid_t>(*pid);
}

}  // namespace gantry::runtime
