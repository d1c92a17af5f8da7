#include "shim/supervised.hpp"

#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/unix_socket.hpp"

namespace gantry::shim {

void Supervised::wait(const Reply& reply) {
  if (!published) {
    // Those whose connection is gone would pile up when a daemon asks again and again.
    if (waiters.size() >= 64) std::erase_if(waiters, [](const Reply& other) { return !other.alive(); });
    waiters.push_back(reply);
    return;
  }
  protocol::Message message = reply.success();
  protocol::put(message, *exit);
  reply.send(message);
}

void Supervised::publish() {
  published = true;
  for (const Reply& reply : std::exchange(waiters, {})) wait(reply);
}

void Supervised::signal(int number) const {
  if (!alive() || !child.pidfd) throw Error(Errc::conflict, "process is not running");
  try {
    sys::send_signal(child.pidfd.get(), number);
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
    throw Error(Errc::conflict, "process is not running");
  }
}

pid_t read_pid_file(const sys::Path& path) {
  const auto pid = parse_int(trim(sys::try_read_small(path).value_or(std::string())));
  if (!pid || *pid <= 0 || *pid > INT32_MAX) throw Error(Errc::corrupted, "the runtime wrote no pid file");
  return static_cast<pid_t>(*pid);
}

protocol::ExitRecord exit_record(int wait_status, std::int64_t when_ns) {
  protocol::ExitRecord record;
  record.finished_ns = when_ns;
  if (WIFSIGNALED(wait_status)) {
    record.signal = WTERMSIG(wait_status);
    record.exit_code = 128 + record.signal;
  } else {
    record.exit_code = WEXITSTATUS(wait_status);
  }
  return record;
}

ConsoleSocket::ConsoleSocket() {
  static unsigned sequence = 0;
  name_ = "console-" + std::to_string(++sequence);
  // Through our working directory the path stays short enough for a socket address, and valid for any process.
  path_ = "/proc/" + std::to_string(::getpid()) + "/cwd/" + name_;
  listener_ = sys::listen_unix(name_, 4);
}

ConsoleSocket::~ConsoleSocket() { ::unlink(name_.c_str()); }

sys::Fd ConsoleSocket::receive() {
  // The runtime has ended, so everything that it sent is in the queue.
  const std::optional<sys::Fd> connection = sys::accept_unix(listener_.get());
  sys::Fd master = connection ? sys::receive_fd(connection->get()) : sys::Fd();
  if (!master || !sys::is_pty_master(master.get())) throw Error(Errc::internal, "the runtime handed over no terminal");
  return master;
}

}  // namespace gantry::shim
