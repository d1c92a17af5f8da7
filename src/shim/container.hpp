#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shim/cgroup_warmth.hpp"
#include "shim/execs.hpp"
#include "shim/freezer.hpp"
#include "shim/log_output.hpp"
#include "shim/oom.hpp"
#include "shim/supervised.hpp"

namespace gantry::shim {

/// The shim's container. Every verb answers its Reply once; a verb that the state does not allow throws
/// Error(conflict), which the caller turns into the answer.
class Container {
 public:
  Container(Loop& loop, Reaper& reaper, protocol::ShimConfig config);

  /// Makes the container and runs its process. Clients may attach before.
  void start(const Reply& reply);
  void kill(int signal, bool all, const Reply& reply);
  void pause(bool paused, const Reply& reply);
  void remove(const Reply& reply);
  void update(const std::string& resources, const Reply& reply);
  void state(const Reply& reply);
  /// `packed`: all of them in one field; otherwise a field for each of the first 1024.
  void pids(bool packed, const Reply& reply);
  void wait_oom(std::uint64_t seen, const Reply& reply);

  Supervised& main() noexcept { return main_; }
  Execs& execs() noexcept { return execs_; }
  LogOutput& log() noexcept { return log_; }
  /// The process that attach, resize and close_stdin mean. Throws not_found.
  Stdio& streams(const std::string& exec_id);
  /// Nothing of the container is left that a shim would be needed for.
  bool gone() const noexcept;
  std::uint32_t attached() const noexcept;

 private:
  void run(std::vector<std::string> args, int stdin_fd, std::function<void(CommandResult)> done);
  void finish_command();
  void launch(const Reply& reply);
  RuntimeCommand::Options launch_options();
  void launched(CommandResult result, const Reply& reply);
  void second_step_done(CommandResult result, const Reply& reply);
  void open_child();
  void running(const Reply& reply);
  void fail_start(const protocol::RuntimeFailure& failure, const Reply& reply);
  static protocol::RuntimeFailure failure_of(protocol::Stage stage, CommandResult result);
  void delete_now(const Reply& reply);
  void process_ended(int status, std::int64_t when_ns);
  void record_end();
  void publish_end();
  void leave_if_abandoned();
  void oom_changed();
  void paused_now(bool paused, const std::string& failure, const Reply& reply);
  void run_simple(std::vector<std::string> args, int stdin_fd, const char* verb, const Reply& reply,
                  std::function<void()> on_success);

  Loop& loop_;
  Reaper& reaper_;
  const protocol::ShimConfig config_;
  ReadBuffer buffer_;
  LogOutput log_;
  Supervised main_;
  Execs execs_;
  std::int64_t created_ns_ = 0;
  bool paused_ = false;
  bool kill_asked_ = false;
  Stdio::ChildEnds ends_;
  std::unique_ptr<ConsoleSocket> console_;
  std::unique_ptr<RuntimeCommand> lifecycle_;          // run, create, start or delete: one at a time
  std::vector<std::unique_ptr<RuntimeCommand>> side_;  // kill, pause, update: beside each other
  std::vector<std::function<void()>> after_lifecycle_;
  std::optional<std::pair<int, std::int64_t>> early_end_;  // the process ended while `start` ran
  Timer abandoned_;
  std::unique_ptr<Freezer> freezer_;
  std::unique_ptr<OomWatch> oom_;
  std::optional<CgroupWarmth> warmth_;  // while the runtime starts the container
  std::vector<std::pair<std::uint64_t, Reply>> oom_waiters_;
};

}  // namespace gantry::shim
