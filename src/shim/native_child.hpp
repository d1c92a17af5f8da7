#pragma once

#include <cstddef>
#include <string>

#include <sys/resource.h>
#include <sys/types.h>

#include "protocol/native_process.hpp"
#include "sys/pty.hpp"

/// The part of a native exec that runs in children of the shim. Two processes: the first, outside of the container's
/// pid namespace, joins everything and gives its privileges up; the second, born inside, only becomes a session,
/// confines itself and executes the program. So what the container's processes can see has next to nothing to steal.
namespace gantry::shim {

/// Everything by value or by a descriptor number: the child reads it from its copy of the shim's memory.
struct NativeJob {
  const protocol::NativeProcess* process = nullptr;
  std::string keyring;  // name of the session keyring, which the container's processes share
  pid_t init_pid = -1;  // the container's first process, not yet reaped
  int init_pidfd = -1;
  bool tty = false;
  sys::TerminalSize size;
  int streams[3] = {-1, -1, -1};  // without a terminal; -1: the container's /dev/null
  int status = -1;                // a SOCK_SEQPACKET socket for reports; its end is the program's begin
  rlimit open_files{};            // unless the process has a limit of its own
};

/// What the children send: one packet each, the kind first.
///   kPid       u32 in host order; beside it the process's pidfd
///   kTerminal  beside it the terminal's master
///   kFailure   one byte protocol::FailureKind, the path, NUL, the message
enum class NativeReport : char { kPid = 'p', kTerminal = 't', kFailure = 'f' };
inline constexpr std::size_t kMaxNativeReport = 6 << 10;  // longer paths are cut

/// For a child that has just been forked. Ends the process in every case.
[[noreturn]] void run_native_child(const NativeJob& job) noexcept;

}  // namespace gantry::shim
