#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "sys/fd.hpp"
#include "sys/file.hpp"

namespace gantry::sys {

/// A child process, named by a pidfd so that a reused pid is never signalled.
struct Child {
  pid_t pid = -1;
  Fd pidfd;
};

struct SpawnOptions {
  std::vector<std::string> argv;  // argv[0] is looked up in PATH if it has no slash
  Path program;                   // what is executed, if that is not argv[0]
  std::vector<std::string> env;   // "NAME=value"; the whole environment
  Path directory;                 // empty: inherit
  int stdin_fd = -1;              // -1: /dev/null
  int stdout_fd = -1;
  int stderr_fd = -1;
  std::vector<int> pass_fds;  // become descriptors 3, 4, … in this order; all others are closed
  bool new_session = true;
};

/// Starts a program. posix_spawn(3) under the hood: cost does not grow with our memory. Throws if it cannot start.
/// Blocks  for the exec (about a millisecond).
Child spawn(const SpawnOptions& options);

/// Opens a pidfd for a process that may not be ours. Throws not_found if there is none.
Fd open_pidfd(pid_t pid);
/// Throws not_found if the process is gone.
void send_signal(int pidfd, int signal);

struct Output {
  int exit_code = 0;  // 128 + n if a signal ended it
  std::string stdout_text;
  std::string stderr_text;
};
/// Runs a program to its end and collects what it prints, each stream bounded by `limit` bytes.
/// Blocks  until it ends; kills it after `timeout_seconds` and throws timed_out.
Output run(SpawnOptions options, int timeout_seconds, std::size_t limit = 1 << 20);

}  // namespace gantry::sys
