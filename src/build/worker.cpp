#include "build/worker.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/readable.hpp"
#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "json/codec.hpp"

namespace gantry::build {
namespace {

using namespace std::chrono_literals;

/// A worker that is about to end has this long before it is killed.
constexpr std::chrono::milliseconds kEndPatience{10'000};
constexpr int kHandoverTries = 4;
constexpr int kClearRounds = 200;
constexpr std::chrono::milliseconds kClearInterval{20};

struct Pair {
  sys::Fd ours;
  sys::Fd theirs;
};

Pair make_pair(int type) {
  int fds[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0) throw Error::from_errno(errno, "make a socket pair");
  return {sys::Fd(fds[0]), sys::Fd(fds[1])};
}

struct Started {
  sys::Child child;
  sys::Fd connections;
  sys::Fd requests;
};

std::vector<std::string> environment() {
  std::vector<std::string> env;
  for (const char* name : {"PATH", "GANTRY_FAILPOINTS", "LD_LIBRARY_PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"})
    if (const char* value = std::getenv(name)) env.push_back(std::string(name) + "=" + value);
  if (std::getenv("PATH") == nullptr)
    env.emplace_back("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  return env;
}

Started start_blocking(const WorkerOptions& options, const sys::CgroupLayout& cgroups) {
  for (const char* part : {"/worker", "/run"}) sys::create_cgroup(cgroups, options.cgroup + part);
  if (options.memory > 0 && !sys::limit_cgroup_memory(cgroups, options.cgroup + "/worker", options.memory))
    log::debug("the builder's memory cannot be limited on this machine");
  Pair connections = make_pair(SOCK_SEQPACKET);
  Pair requests = make_pair(SOCK_STREAM);
  sys::SpawnOptions spawn;
  spawn.argv = {options.program.string(), "--cgroup", options.cgroup + "/worker"};
  spawn.argv.insert(spawn.argv.end(), options.flags.begin(), options.flags.end());
  spawn.env = environment();
  spawn.directory = "/";
  spawn.stderr_fd = STDERR_FILENO;
  spawn.pass_fds = {connections.theirs.get(), requests.theirs.get()};
  FAILPOINT("build.worker.before_start");
  Started out;
  out.child = sys::spawn(spawn);
  out.connections = std::move(connections.ours);
  out.requests = std::move(requests.ours);
  return out;
}

/// How it ended, in words; empty if it ended by itself and well.
std::string reap_blocking(const sys::Child& child) {
  int status = 0;
  while (::waitpid(child.pid, &status, 0) < 0)
    if (errno != EINTR) return "it is gone";
  if (WIFSIGNALED(status)) return fmt::format("signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? std::string() : fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace

Worker::Worker(boost::asio::any_io_executor loop, async::Lanes& lanes, const sys::CgroupLayout& cgroups,
               Options options, LinkHandler handler, std::function<Task<void>()> ended)
    : loop_(loop),
      lanes_(lanes),
      cgroups_(cgroups),
      options_(std::move(options)),
      handler_(std::move(handler)),
      ended_(std::move(ended)),
      tasks_(loop) {}

Worker::~Worker() = default;

Task<void> Worker::clear_cgroup(std::string group) {
  // The kernel tells nobody when the last process of a group of version 1 is gone.
  for (int round = 0; round < kClearRounds; ++round) {
    const bool cleared = co_await lanes_.quick.run([&cgroups = cgroups_, group] {
      sys::kill_cgroup(cgroups, group);
      return sys::remove_cgroup(cgroups, group);
    });
    if (cleared) co_return;
    co_await async::sleep_for(kClearInterval);
  }
  log::warning("the control group {} of the builder cannot be removed: processes of it do not end", group);
}

Task<void> Worker::recover() { co_await clear_cgroup(options_().cgroup); }

Task<void> Worker::hand_over(protocol::Handover request, sys::Fd fd) {
  const std::string message = json::render(json::encode(request));
  if (message.size() > protocol::kMaxHandover)
    throw Error(Errc::invalid_argument, "the request's parameters and headers are too large");
  for (int round = 0; round < kHandoverTries; ++round) {
    ProcessPtr process = co_await get_process();
    if (!process->leaving && send_handover(process->connections.get(), message, fd.get())) {
      ++process->handed_over;
      co_return;
    }
    co_await wait_end(process, kEndPatience);
  }
  throw Error(Errc::unavailable, "the builder ends as soon as it is started: see the daemon's log");
}

Task<Worker::ProcessPtr> Worker::get_process() {
  if (process_) co_return process_;
  auto turn = co_await starting_.lock("starting the builder");
  if (process_) co_return process_;
  co_return co_await async::shielded(start());
}

Task<Worker::ProcessPtr> Worker::start() {
  if (stopping_) throw Error(Errc::unavailable, "the daemon is shutting down");
  const WorkerOptions options = options_();
  Started started =
      co_await lanes_.quick.run([&cgroups = cgroups_, options] { return start_blocking(options, cgroups); });
  auto process = std::make_shared<Process>();
  process->child = std::move(started.child);
  process->connections = std::move(started.connections);
  process->cgroup = options.cgroup;
  process_ = process;
  log::debug("the builder runs as process {}", process->child.pid);
  tasks_.spawn("looking after the builder", look_after(process, std::move(started.requests)));
  co_return process;
}

Task<LinkReply> Worker::answer(ProcessPtr process, std::string method, std::string params, LinkCallPtr call) {
  if (method != "worker.leave") co_return co_await handler_(std::move(method), std::move(params), std::move(call));
  const auto known = json::decode<protocol::LeaveParams>(json::parse(params)).Received;
  process->leaving = known == process->handed_over;
  LinkReply reply;
  reply.json = json::render(json::encode(protocol::LeaveResult{process->leaving}));
  co_return reply;
}

Task<void> Worker::look_after(ProcessPtr process, sys::Fd requests) {
  async::TaskGroup link(loop_);
  link.spawn(
      "the builder's requests",
      serve_link(loop_, std::move(requests), [this, process](std::string method, std::string params, LinkCallPtr call) {
        return answer(process, std::move(method), std::move(params), std::move(call));
      }));
  async::Readable exit(loop_, process->child.pidfd.duplicate());
  co_await exit.wait();
  const std::string how = co_await lanes_.quick.run([&child = process->child] { return reap_blocking(child); });
  if (!how.empty() && !stopping_) log::error("the builder ended unexpectedly: {}", how);
  process->connections.reset();
  // What it has started goes before what it had asked for.
  co_await clear_cgroup(process->cgroup);
  co_await link.join();
  try {
    co_await ended_();
  } catch (const Error& e) {
    log::error("taking back what the builder had: {}", e.log_detail());
  }
  if (process_ == process) process_.reset();
  process->over = true;
  process->ended.notify();
}

void Worker::send_signal(const Process& process, int signal) {
  try {
    sys::send_signal(process.child.pidfd.get(), signal);
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;  // it has ended
  }
}

Task<void> Worker::wait_end(ProcessPtr process, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!process->over) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left > 0s && co_await process->ended.wait_for(left)) continue;
    if (process->over) break;
    log::warning("the builder does not end: killed");
    send_signal(*process, SIGKILL);
    while (!process->over) co_await process->ended.wait();
  }
}

Task<void> Worker::stop(std::chrono::milliseconds patience) {
  stopping_ = true;
  if (ProcessPtr process = process_) {
    send_signal(*process, SIGTERM);
    co_await wait_end(process, patience);
  }
  co_await tasks_.join();
}

}  // namespace gantry::build
