#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "protocol/types.hpp"
#include "shim/reply.hpp"
#include "shim/runtime_command.hpp"
#include "shim/stdio.hpp"
#include "sys/process.hpp"

namespace gantry::shim {

/// What the container's main process and an exec have in common: streams, a pid, an end, and those who wait for it.
struct Supervised {
  std::unique_ptr<Stdio> io;
  sys::Child child;  // pid -1 while there is no process
  protocol::Status status = protocol::Status::empty;
  std::int64_t started_ns = 0;
  std::optional<protocol::ExitRecord> exit;  // set when it is known, before it is published
  bool published = false;
  std::vector<Reply> waiters;

  /// Answers now if the end is published, and then otherwise.
  void wait(const Reply& reply);
  void publish();
  /// Throws Error(conflict) if it has ended or not begun.
  void signal(int number) const;
  bool alive() const noexcept { return child.pid > 0 && !exit; }
};

/// Reads a pid file that the runtime wrote. Throws corrupted.
pid_t read_pid_file(const sys::Path& path);
/// A wait status as an exit record.
protocol::ExitRecord exit_record(int wait_status, std::int64_t when_ns);

/// The socket through which the runtime hands over the master of a terminal.
class ConsoleSocket {
 public:
  ConsoleSocket();
  ~ConsoleSocket();
  ConsoleSocket(const ConsoleSocket&) = delete;
  ConsoleSocket& operator=(const ConsoleSocket&) = delete;
  /// The path for the runtime, which may have another working directory.
  const std::string& path() const noexcept { return path_; }
  /// After the runtime has ended. Throws internal if it sent no terminal.
  sys::Fd receive();

 private:
  std::string name_;
  std::string path_;
  sys::Fd listener_;
};

}  // namespace gantry::shim
