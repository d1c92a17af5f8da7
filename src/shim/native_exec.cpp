#include "shim/native_exec.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "shim/native_report.hpp"
#include "shim/open_files.hpp"

namespace gantry::shim {
namespace {

/// The group of version 2 that the container's first process is in, as a directory.
std::string group_of_init(const protocol::NativeProcess& process, pid_t init) {
  const auto text = sys::try_read_small("/proc/" + std::to_string(init) + "/cgroup");
  for (std::string_view rest = text ? std::string_view(*text) : std::string_view(); !rest.empty();) {
    const auto [line, after] = split_once(rest, '\n');
    rest = after;
    if (line.starts_with("0::/")) return process.cgroup_v2_mount + std::string(line.substr(3));
  }
  return {};
}

/// What the container's processes may open. runc (built with Go 1.19 to 1.21) gives them its own soft limit, which Go
/// has raised to the hard one; an exec is to have no less.
rlimit open_files_for(pid_t init) {
  rlimit limit = original_open_files();
  const auto text = sys::try_read_small("/proc/" + std::to_string(init) + "/limits");
  constexpr std::string_view kName = "Max open files";
  const std::size_t at = text ? text->find(kName) : std::string::npos;
  if (at == std::string::npos) return limit;
  const rlim_t theirs = std::strtoull(text->c_str() + at + kName.size(), nullptr, 10);
  limit.rlim_cur = std::min(std::max(limit.rlim_cur, theirs), limit.rlim_max);
  return limit;
}

/// A fork that is born in a group of version 2: moving it there later would wait for an RCU grace period.
/// -1 with errno set.
pid_t fork_into(const std::string& group) {
  clone_args how{};
  how.exit_signal = SIGCHLD;
  sys::Fd directory;
  if (!group.empty()) directory = sys::Fd(::open(group.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (directory) {
    how.flags = CLONE_INTO_CGROUP;
    how.cgroup = static_cast<std::uint64_t>(directory.get());
  } else if (!group.empty() && errno != ENOENT) {
    return -1;
  }
  return static_cast<pid_t>(::syscall(SYS_clone3, &how, sizeof how));
}

pid_t fork_for(const protocol::NativeProcess& process, pid_t init) {
  pid_t pid = fork_into(process.cgroup_v2);
  // The container has divided its group (systemd inside does): only the leaves may hold processes.
  if (pid < 0 && (errno == EBUSY || errno == EOPNOTSUPP)) pid = fork_into(group_of_init(process, init));
  return pid;
}

}  // namespace

NativeExec::NativeExec(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config, Options options, Done done)
    : reaper_(reaper), hold_(reaper), tty_(options.tty), done_(std::move(done)) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) throw Error::from_errno(errno, "socketpair");
  status_ = sys::Fd(ends[0]);
  const sys::Fd child_end(ends[1]);
  NativeJob job;
  job.process = options.process.get();
  job.keyring = "_ses." + config.container_id;  // the name that runc gives it
  job.init_pid = options.init_pid;
  job.init_pidfd = options.init_pidfd;
  job.tty = options.tty;
  job.size = options.size;
  std::copy(std::begin(options.streams), std::end(options.streams), std::begin(job.streams));
  job.status = child_end.get();
  job.open_files = open_files_for(options.init_pid);
  first_ = fork_for(*options.process, options.init_pid);
  if (first_ < 0) throw Error::from_errno(errno, "fork");
  if (first_ == 0) run_native_child(job);
  reaper_.expect(first_, [this](int, std::int64_t) { first_ = -1; });
  watch_ = loop.watch(status_.get(), EPOLLIN, [this](std::uint32_t) { on_report(); });
  timeout_ = loop.after(std::chrono::milliseconds(config.runtime_timeout_ms), [this] { abort(true); });
}

NativeExec::~NativeExec() {
  if (first_ > 0) reaper_.forget(first_);
}

void NativeExec::abort(bool because_of_time) {
  aborted_ = true;
  timed_out_ = timed_out_ || because_of_time;
  if (first_ > 0) (void)::kill(first_, SIGKILL);
  kill_second();
  if (!result_.failure) result_.failure.emplace().message = "the process that joins the container was killed";
}

void NativeExec::kill_second() noexcept {
  if (result_.child.pidfd) (void)::syscall(SYS_pidfd_send_signal, result_.child.pidfd.get(), SIGKILL, nullptr, 0);
}

void NativeExec::on_report() {
  for (;;) {
    char packet[kMaxNativeReport];
    iovec data{packet, sizeof packet};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(status_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return finish();
    sys::Fd descriptor;
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(header), sizeof raw);
      descriptor = sys::Fd(raw);
    }
    take({packet, static_cast<std::size_t>(got)}, std::move(descriptor));
  }
}

void NativeExec::take(std::string_view packet, sys::Fd descriptor) {
  const auto kind = static_cast<NativeReport>(packet.front());
  packet.remove_prefix(1);
  if (kind == NativeReport::kTerminal) {
    result_.terminal = std::move(descriptor);
  } else if (kind == NativeReport::kPid && packet.size() == sizeof(std::uint32_t)) {
    std::uint32_t pid = 0;
    std::memcpy(&pid, packet.data(), sizeof pid);
    result_.child.pid = static_cast<pid_t>(pid);
    result_.child.pidfd = std::move(descriptor);
    if (aborted_) kill_second();
  } else if (kind == NativeReport::kFailure && packet.size() >= 2) {
    protocol::RuntimeFailure& failure = result_.failure.emplace();
    failure.kind = static_cast<protocol::FailureKind>(packet.front());
    const auto [path, message] = split_once(packet.substr(1), '\0');
    failure.path = path;
    failure.message = message;
  }
}

/// Nobody holds the other end: both processes have ended, or the second one executes its program.
void NativeExec::finish() {
  watch_.reset();
  timeout_.reset();
  if (!result_.failure && result_.child.pid <= 0)
    result_.failure.emplace().message = "the process that joins the container ended";
  if (!result_.failure && tty_ && !result_.terminal) {
    kill_second();
    result_.failure.emplace().message = "the process handed over no terminal";
  }
  if (result_.failure) {
    result_.failure->stage = protocol::Stage::exec;
    if (timed_out_) {
      result_.failure->kind = protocol::FailureKind::timed_out;
      result_.failure->message = "the process could not join the container in time and was killed";
    }
    result_.child = {};
  }
  const Done done = std::move(done_);
  done(std::move(result_));
}

}  // namespace gantry::shim
