#pragma once

#include <chrono>
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
class Lifecycle {
 public:
  Lifecycle(Services& services, ContainerStore& store);
  ~Lifecycle();
  /// The removal that --rm asks for. Set once by app.cpp.
  void set_containers(Containers* containers) { containers_ = containers; }

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

  /// Brings memory, rows and kernel together after a start of the daemon: adopts running shims, records exits that
  /// happened meanwhile, takes half-begun starts back. Then follow_up() carries out --rm and restart policies.
  Task<void> recover();
  void follow_up();
  /// Ids whose shim lives, found before networks and storage recover. Blocks for a look at each directory.
  static std::set<std::string> find_live_blocking(const sys::Paths& paths);

  /// Ends the supervisors, not the containers.
  Task<void> stop_supervising();

  /// For verbs that hold the container's mutex.
  Task<void> stop_locked(ContainerPtr container, std::chrono::milliseconds grace, int signal);

 private:
  Task<void> start_locked(async::OperationPtr op, ContainerPtr container);
  Task<void> start_steps(async::OperationPtr op, ContainerPtr container);
  Task<void> prepare_bundle(ContainerPtr container, network::AttachResult* attached, sys::Path rootfs);
  Task<void> launch(async::OperationPtr op, ContainerPtr container, network::AttachResult* attached);
  Task<void> fail_start(ContainerPtr container, int exit_code, std::string message);
  Task<void> supervise(ContainerPtr container);
  Task<bool> after_exit(ContainerPtr container, protocol::ExitRecord exit);
  Task<void> record_exit(ContainerPtr container, protocol::ExitRecord exit);
  Task<void> release(ContainerPtr container);
  Task<protocol::ExitRecord> await_exit(ContainerPtr container);
  Task<bool> wait_until_down(ContainerPtr container, std::chrono::milliseconds limit);
  Task<void> adopt(ContainerPtr container);
  Task<void> watch_oom(ContainerPtr container, std::uint64_t start);
  bool wants_restart(const Container& container) const;
  void spawn_supervisor(ContainerPtr container);
  void publish(const Container& container, std::string action, std::map<std::string, std::string> extra = {});

  Services& services_;
  ContainerStore& store_;
  Containers* containers_ = nullptr;
  std::unique_ptr<async::TaskGroup> supervisors_;
};

/// Signal numbers from "9", "KILL", "SIGKILL", "RTMIN+3". Throws invalid_argument `invalid signal: X`.
int parse_signal(std::string_view text);

}  // namespace gantry::engine
