#include "buildops/program.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::buildops {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLastOutput{1000};
constexpr int kTick = 50;  // ms

struct Pipe {
  sys::Fd read_end;
  sys::Fd write_end;
  Pipe() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
    read_end = sys::Fd(fds[0]);
    write_end = sys::Fd(fds[1]);
    if (::fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0) throw Error::from_errno(errno, "set non-blocking");
  }
};

class Runner {
 public:
  Runner(const ProgramHooks& hooks, std::stop_token stop) : hooks_(hooks), stop_(std::move(stop)) {
    stopped_ = sys::Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!stopped_) throw Error::from_errno(errno, "eventfd");
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  ~Runner() {
    if (!running_) return;
    // Somebody threw who was given its output.
    (void)::kill(-child_.pid, SIGKILL);
    while (::waitpid(child_.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  int run(sys::SpawnOptions& options) {
    const std::stop_callback wake(stop_, [fd = stopped_.get()] { (void)::eventfd_write(fd, 1); });
    options.stdout_fd = out_.write_end.get();
    options.stderr_fd = err_.write_end.get();
    child_ = sys::spawn(options);
    running_ = true;
    out_.write_end.reset();
    err_.write_end.reset();
    const int status = watch();
    if (stop_.stop_requested()) throw Error(Errc::cancelled, "context canceled");
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  int watch() {
    int status = 0;
    Clock::time_point until{};
    while (running_ || ((out_.read_end || err_.read_end) && Clock::now() < until)) {
      pollfd fds[4] = {{out_.read_end.get(), POLLIN, 0},
                       {err_.read_end.get(), POLLIN, 0},
                       {running_ ? child_.pidfd.get() : -1, POLLIN, 0},
                       {killing_ ? -1 : stopped_.get(), POLLIN, 0}};
      if (::poll(fds, 4, !running_ || killing_ ? kTick : -1) < 0 && errno != EINTR)
        throw Error::from_errno(errno, "poll");
      if (fds[0].revents != 0) drain(out_.read_end, 1);
      if (fds[1].revents != 0) drain(err_.read_end, 2);
      if (running_ && stop_.stop_requested()) kill();
      if (fds[2].revents != 0 && ::waitpid(child_.pid, &status, WNOHANG) == child_.pid) {
        running_ = false;
        until = Clock::now() + kLastOutput;
      }
    }
    return status;
  }

  void drain(sys::Fd& pipe, int stream) {
    char buffer[65536];
    const ssize_t got = ::read(pipe.get(), buffer, sizeof buffer);
    if (got > 0) hooks_.output(stream, {buffer, static_cast<std::size_t>(got)});
    else if (got == 0 || (errno != EINTR && errno != EAGAIN)) pipe.reset();
  }

  void kill() {
    if (!std::exchange(killing_, true)) killing_since_ = Clock::now();
    if (hooks_.kill) hooks_.kill(child_, std::chrono::duration_cast<milliseconds>(Clock::now() - killing_since_));
    else (void)::kill(-child_.pid, SIGKILL);
  }

  const ProgramHooks& hooks_;
  const std::stop_token stop_;
  sys::Fd stopped_;
  Pipe out_;
  Pipe err_;
  sys::Child child_;
  bool running_ = false;
  bool killing_ = false;
  Clock::time_point killing_since_{};
};

}  // namespace

int run_program(sys::SpawnOptions options, const ProgramHooks& hooks, std::stop_token stop) {
  return Runner(hooks, std::move(stop)).run(options);
}

std::vector<std::string> own_environment(const std::vector<std::string>& names) {
  std::vector<std::string> env;
  for (const std::string& name : names)
    if (const char* value = std::getenv(name.c_str())) env.push_back(name + "=" + value);
  return env;
}

}  // namespace gantry::buildops
