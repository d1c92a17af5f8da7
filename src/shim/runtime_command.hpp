#pragma once

#include <functional>
#include <string>
#include <vector>

#include "protocol/types.hpp"
#include "shim/loop.hpp"
#include "shim/reaper.hpp"
#include "sys/process.hpp"

namespace gantry::shim {

struct CommandResult {
  bool ok = false;
  bool timed_out = false;
  std::string failure;  // the runtime's words; empty if ok
};

/// One run of the OCI runtime. It never blocks the loop; it is killed when it takes longer than the config allows.
class RuntimeCommand {
 public:
  struct Options {
    std::vector<std::string> args;  // the subcommand and what follows, without global arguments
    int stdin_fd = -1;
    int stdout_fd = -1;
    int stderr_fd = -1;  // -1: collected for the failure text
  };
  using Done = std::function<void(CommandResult)>;

  /// Starts it. `done` is called from the loop, once; it may destroy this object. Throws if it cannot be started.
  RuntimeCommand(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config, Options options, Done done);
  ~RuntimeCommand();
  RuntimeCommand(const RuntimeCommand&) = delete;
  RuntimeCommand& operator=(const RuntimeCommand&) = delete;

  /// Kills the runtime; `done` is called as after any failure.
  void abort(bool because_of_time);

 private:
  void ended(int status);

  Reaper& reaper_;
  Reaper::Hold hold_;
  sys::Child child_;
  sys::Path log_path_;
  sys::Fd printed_;
  Timer timeout_;
  bool timed_out_ = false;
  Done done_;
};

/// The path of a file in the shim's directory for other programs.
std::string absolute_path(const std::string& name);

/// Text in an anonymous file, positioned at its start: for a child's standard input.
sys::Fd text_file(std::string_view text);

}  // namespace gantry::shim
