#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "async/task.hpp"
#include "async/task_group.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/services.hpp"

namespace gantry::engine {

class Containers;

enum class WaitCondition { not_running, next_exit, removed };

struct WaitResult {
  int exit_code = 0;
  std::string error;  // empty: none
};

/// Registered by begin_wait() at once, so that no exit that happens afterwards can be missed.
struct WaitTicket {
  ContainerPtr container;
  WaitCondition condition = WaitCondition::not_running;
  std::uint64_t exits_before = 0;
};

/// Starting, stopping, and what happens between. One supervisor coroutine per running container records its exit and
/// follows its restart policy. Each verb is a file: lifecycle_start.cpp, lifecycle_stop.cpp …
///
/// A container's mutex orders what builds it up and takes it down. Stopping and killing only signal and wait, so they
/// take their turn but do not hold the mutex while they wait: a `kill` overtakes a `stop` with a long grace period.
/// The supervisor records an exit without the mutex: it is a fact, not a verb.
class Lifecycle {
 public:
  Lifecycle(Services& services, ContainerStore& store);
  ~Lifecycle();
  /// The removal that --rm asks for. Set once by app.cpp.
  void set_containers(Containers* containers) { containers_ = containers; }
  /// Called for every run that begins, and for every one that a new daemon takes over. Set once, before recover().
  void on_started(std::function<void(ContainerPtr)> hook) { on_started_ = std::move(hook); }

  /// Returns when the process runs and its addresses and ports are known. Throws not_modified if it runs already.
  Task<void> start(std::string reference);
  /// `timeout` nullopt: the container's own, else the daemon's; negative: for ever. `signal` empty: the container's.
  /// Throws not_modified if it does not run.
  Task<void> stop(std::string reference, std::optional<std::chrono::seconds> timeout, std::string signal);
  Task<void> restart(std::string reference, std::optional<std::chrono::seconds> timeout, std::string signal);
  /// `signal` as clients write it ("9", "KILL", "SIGKILL"); empty: KILL.
  Task<void> kill(std::string reference, std::string signal);
  Task<void> pause(std::string reference);
  Task<void> unpause(std::string reference);
  Task<void> resize(std::string reference, std::uint16_t rows, std::uint16_t columns);

  WaitTicket begin_wait(const std::string& reference, WaitCondition condition);
  Task<WaitResult> finish_wait(WaitTicket ticket);

  /// After ContainerStore::load() and the other modules' recovery: brings memory, rows and kernel together: adopts
  /// running shims, records exits that happened meanwhile, takes half-begun starts back. Returns one sentence for each
  /// thing put right.
  Task<std::vector<std::string>> recover();
  /// After recover(): carries out --rm and restart policies for what ended meanwhile.
  void follow_up();
  /// Ids whose container lives: for the modules that recover before this one. Blocks for a look at each shim.
  static std::set<std::string> find_live_blocking(const sys::Paths& paths);

  /// Ends the supervisors, not the containers.
  Task<void> stop_supervising();

  /// Kills a running container and waits until its exit is recorded and what it used is taken down.
  Task<void> kill_and_wait(ContainerPtr container);
  /// Waits until what the last run used is taken down. Throws timed_out.
  Task<void> wait_until_released(ContainerPtr container);
  void publish(const Container& container, std::string action, std::map<std::string, std::string> extra = {});

 private:
  Task<void> start_locked(ContainerPtr container);
  Task<void> start_steps(async::OperationPtr op, ContainerPtr container);
  Task<void> write_bundle(ContainerPtr container, const network::Attachment* attachment, sys::Path user_namespace);
  Task<void> launch(async::OperationPtr op, ContainerPtr container, network::AttachResult* attached);
  Task<void> mount_volumes(ContainerPtr container);
  Task<sys::Path> prepare_user_namespace(async::OperationPtr op, ContainerPtr container);
  Task<void> let_clients_attach(ContainerPtr container);
  Task<void> take_back_start(ContainerPtr container);
  void note_failed_start(Container& container, const std::exception_ptr& failure);

  Task<void> stop_container(ContainerPtr container, std::optional<std::chrono::seconds> timeout, int signal);
  Task<void> take_turn(ContainerPtr container, std::string verb);
  Task<void> send_signal(ContainerPtr container, int signal);
  Task<bool> wait_until_down(ContainerPtr container, std::chrono::milliseconds limit);
  int stop_signal(const Container& container, const std::string& wanted) const;

  Task<void> supervise(ContainerPtr container);
  Task<protocol::ExitRecord> await_exit(ContainerPtr container);
  Task<void> record_exit(ContainerPtr container, protocol::ExitRecord exit);
  Task<void> release(ContainerPtr container);
  Task<bool> restart_by_policy(ContainerPtr container);
  Task<void> remove_after_exit(ContainerPtr container);
  Task<void> watch_oom(ContainerPtr container, std::uint64_t start);
  bool wants_restart(const Container& container) const;
  void spawn_supervisor(ContainerPtr container);

  Task<bool> adopt(ContainerPtr container);
  Task<void> resume_policy(ContainerPtr container);
  Task<void> sweep_shims();
  Task<void> save_state_or_log(ContainerPtr container);
  Task<void> remove_from_runtime(ContainerPtr container);
  std::string cgroup_of(const Container& container) const;
  protocol::ShimConfig shim_config(const Container& container) const;

  Services& services_;
  ContainerStore& store_;
  Containers* containers_ = nullptr;
  std::function<void(ContainerPtr)> on_started_;
  std::unique_ptr<async::TaskGroup> supervisors_;
};

/// Signal numbers from "9", "KILL", "SIGKILL", "RTMIN+3". Throws invalid_argument `invalid signal: X`.
int parse_signal(std::string_view text);

}  // namespace gantry::engine
