#include "sys/process.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"

extern char** environ;

namespace gantry::sys {
namespace {

std::vector<char*> c_strings(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (const std::string& s : strings) out.push_back(const_cast<char*>(s.c_str()));
  out.push_back(nullptr);
  return out;
}

/// The file actions that give a child exactly its three streams and the passed descriptors.
class FileActions {
 public:
  explicit FileActions(const SpawnOptions& options) {
    posix_spawn_file_actions_init(&actions_);
    // A descriptor to be moved may sit where another must go: first copy all of them out of the way.
    std::vector<int> wanted{options.stdin_fd, options.stdout_fd, options.stderr_fd};
    wanted.insert(wanted.end(), options.pass_fds.begin(), options.pass_fds.end());
    for (const int fd : wanted) {
      copies_.emplace_back();
      if (fd < 0) continue;
      copies_.back() = Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 64));
      if (!copies_.back()) throw Error::from_errno(errno, "duplicate descriptor");
    }
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      const int target = static_cast<int>(i);
      if (copies_[i]) posix_spawn_file_actions_adddup2(&actions_, copies_[i].get(), target);
      else posix_spawn_file_actions_addopen(&actions_, target, "/dev/null", target == 0 ? O_RDONLY : O_WRONLY, 0);
    }
    posix_spawn_file_actions_addclosefrom_np(&actions_, static_cast<int>(copies_.size()));
    if (!options.directory.empty()) posix_spawn_file_actions_addchdir_np(&actions_, options.directory.c_str());
  }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
  std::vector<Fd> copies_;
};

struct Pipe {
  Fd read_end;
  Fd write_end;
};

Pipe make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
  return {Fd(fds[0]), Fd(fds[1])};
}

/// Reads what is there. Returns false at the end of the stream. Bytes past `limit` are dropped.
bool drain(int fd, std::string& into, std::size_t limit) {
  char buffer[16384];
  const ssize_t got = ::read(fd, buffer, sizeof buffer);
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  if (got == 0) return false;
  into.append(buffer, std::min(static_cast<std::size_t>(got), limit - std::min(limit, into.size())));
  return true;
}

int reap(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

Child spawn(const SpawnOptions& options) {
  FileActions actions(options);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (options.new_session) flags |= POSIX_SPAWN_SETSID;
  posix_spawnattr_setflags(&attributes, flags);
  std::vector<char*> argv = c_strings(options.argv);
  std::vector<char*> env = c_strings(options.env);
  Child child;
  const char* const program = options.program.empty() ? argv[0] : options.program.c_str();
  const int err = ::posix_spawnp(&child.pid, program, actions.get(), &attributes, argv.data(), env.data());
  posix_spawnattr_destroy(&attributes);
  if (err != 0) throw Error::from_errno(err, fmt::format("start {}", options.argv.at(0)));
  child.pidfd = open_pidfd(child.pid);
  return child;
}

Fd open_pidfd(pid_t pid) {
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) {
    const int err = errno;
    if (err == ESRCH) throw Error(Errc::not_found, fmt::format("no process {}", pid));
    throw Error::from_errno(err, fmt::format("pidfd_open {}", pid));
  }
  return fd;
}

void send_signal(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0) return;
  const int err = errno;
  if (err == ESRCH) throw Error(Errc::not_found, "process is gone");
  throw Error::from_errno(err, fmt::format("send signal {}", signal));
}

Output run(SpawnOptions options, int timeout_seconds, std::size_t limit) {
  Pipe out = make_pipe();
  Pipe err = make_pipe();
  options.stdout_fd = out.write_end.get();
  options.stderr_fd = err.write_end.get();
  Child child = spawn(options);
  out.write_end.reset();
  err.write_end.reset();
  Output result;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_seconds);
  while (out.read_end || err.read_end) {
    pollfd fds[2] = {{out.read_end.get(), POLLIN, 0}, {err.read_end.get(), POLLIN, 0}};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      send_signal(child.pidfd.get(), SIGKILL);
      reap(child.pid);
      throw Error(Errc::timed_out, fmt::format("{} did not end within {} s", options.argv.at(0), timeout_seconds));
    }
    if (::poll(fds, 2, static_cast<int>(left.count())) <= 0) continue;
    if (fds[0].revents != 0 && !drain(out.read_end.get(), result.stdout_text, limit)) out.read_end.reset();
    if (fds[1].revents != 0 && !drain(err.read_end.get(), result.stderr_text, limit)) err.read_end.reset();
  }
  result.exit_code = reap(child.pid);
  return result;
}

}  // namespace gantry::sys
