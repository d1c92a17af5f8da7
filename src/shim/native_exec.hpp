#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "protocol/native_process.hpp"
#include "protocol/types.hpp"
#include "shim/loop.hpp"
#include "shim/native_child.hpp"
#include "shim/reaper.hpp"
#include "sys/process.hpp"

namespace gantry::shim {

struct NativeResult {
  sys::Child child;  // pid -1 if it failed
  sys::Fd terminal;  // the master, if one was wanted
  std::optional<protocol::RuntimeFailure> failure;
};

/// Starts a process in the container without the runtime. Never blocks the loop, for the children do what could wait
/// for something of the container (its file systems); they are killed when they take longer than the config allows.
///
/// What protects the host meanwhile: the children hold no descriptor of the shim but their streams and the socket for
/// reports, cannot be traced by processes of the container (not dumpable), and run from a sealed copy of the shim's
/// program (runtime::spawn_shim_blocking), so that nothing is gained by making them execute /proc/self/exe.
class NativeExec {
 public:
  using Done = std::function<void(NativeResult)>;

  struct Options {
    std::unique_ptr<protocol::NativeProcess> process;
    pid_t init_pid = -1;  // the container's first process, which the reaper has not reaped
    int init_pidfd = -1;
    bool tty = false;
    sys::TerminalSize size;
    int streams[3] = {-1, -1, -1};
  };

  /// Forks; the descriptors are needed no longer afterwards. `done` is called from the loop, once; it may destroy this
  /// object. Throws if it cannot fork.
  NativeExec(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config, Options options, Done done);
  ~NativeExec();
  NativeExec(const NativeExec&) = delete;
  NativeExec& operator=(const NativeExec&) = delete;

  /// Kills the children; `done` is called as after any failure.
  void abort(bool because_of_time);

 private:
  void on_report();
  void take(std::string_view packet, sys::Fd descriptor);
  void finish();
  void kill_second() noexcept;

  Reaper& reaper_;
  Reaper::Hold hold_;
  sys::Fd status_;
  Watch watch_;
  Timer timeout_;
  pid_t first_ = -1;  // not reaped yet
  bool tty_ = false;
  bool aborted_ = false;
  bool timed_out_ = false;
  NativeResult result_;
  Done done_;
};

}  // namespace gantry::shim
