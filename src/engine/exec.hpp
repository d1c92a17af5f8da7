#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/signal.hpp"
#include "async/task.hpp"
#include "async/task_group.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/lifecycle.hpp"
#include "engine/services.hpp"
#include "engine/stream_client.hpp"
#include "protocol/native_process.hpp"
#include "runtime/seccomp_program.hpp"

namespace gantry::engine {

/// 0: leave the terminal's size alone.
struct ExecTerminalSize {
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
};

struct ExecOptions {
  std::vector<std::string> command;
  std::vector<std::string> env;  // on top of the container's
  std::string user;              // empty: the container's
  std::string working_dir;       // empty: the container's
  bool privileged = false;
  bool tty = false;
  bool use_stdin = false;
  bool use_stdout = false;
  bool use_stderr = false;
  std::string detach_keys;  // as the client wrote them; empty: the default
  ExecTerminalSize size;
};

enum class ExecPhase { created, starting, running, ended };

/// A further process of a container. Belongs to the loop thread.
struct Exec {
  std::string id;
  std::string container_id;
  ContainerWeak container;
  ExecOptions options;       // without the environment
  std::string keys;          // the bytes that detach; empty: the default
  std::string process_json;  // what the runtime gets; empty once it was started
  /// What the shim gets instead if it can make the process itself, and how the container is confined.
  std::unique_ptr<protocol::NativeProcess> native;
  std::shared_ptr<const runtime::Confinement> confinement;
  bool is_probe = false;  // a health check: told in events, shown nowhere

  ExecPhase phase = ExecPhase::created;
  std::optional<int> exit_code;  // 126 or 127 if it could not be started
  std::int64_t pid = 0;
  bool can_remove = false;   // ended, and seen by one round of collect()
  std::uint64_t number = 0;  // in the order of creation
  async::Signal changed;     // notified after every change of `phase`

  std::string shim_id() const { return is_probe ? "probe-" + id : id; }
  /// The command as events tell it: Docker ends a single word with a space.
  std::string command_text() const;
};
using ExecPtr = std::shared_ptr<Exec>;

/// The execs of all containers. Their processes and streams belong to the shims, so they go on without the daemon, and
/// recover() finds them again. A record stays until the container is removed, or five to ten minutes after the end.
class Execs {
 public:
  using StreamPtr = std::shared_ptr<runtime::AttachStream>;
  using ClientPtr = std::shared_ptr<StreamClient>;

  Execs(Services& services, ContainerStore& store, Lifecycle& lifecycle);
  ~Execs();

  /// Throws invalid_argument (no command, unknown user, detach keys), not_found, conflict (it does not run, is paused).
  Task<ExecPtr> create(std::string reference, ExecOptions options);
  /// The same for a health check: no record is kept after forget().
  Task<ExecPtr> create_probe(ContainerPtr container, std::vector<std::string> command);
  void forget(const Exec& exec);

  /// Throws not_found `No such exec instance: x`, also when the container is gone.
  ExecPtr get(const std::string& id) const;
  /// What a start checks before it answers. Throws not_found, conflict (the container does not run, is paused).
  ExecPtr get_startable(const std::string& id) const;

  /// Returns when the process runs. Throws conflict if it was started before, and what the runtime has against it.
  Task<void> start_detached(ExecPtr exec, ExecTerminalSize size);
  /// Serves the client until the process has ended and its exit code is known, or the client detaches or leaves. What
  /// goes wrong is told to the client as text. `framed`: the client expects frames. Throws only when cancelled.
  Task<void> run_attached(ExecPtr exec, ClientPtr client, bool framed, ExecTerminalSize size);
  /// Starts it with its output attached, as run_attached, for the caller to read.
  Task<StreamPtr> start_attached(ExecPtr exec);
  Task<void> wait_end(ExecPtr exec);
  /// Kills the process, its descendants, and what else is in its session.
  Task<void> kill_tree(ExecPtr exec);
  /// Kills health checks that a former daemon began in this container.
  Task<void> kill_old_probes(ContainerPtr container);

  /// Waits up to ten seconds for the start. Throws invalid_argument if that failed, internal if it did not come.
  Task<void> resize(std::string id, ExecTerminalSize size);

  /// After Lifecycle::recover(): finds the execs that running containers have.
  Task<void> recover();
  /// Ends the watching, not the processes.
  Task<void> stop();

 private:
  Task<ExecPtr> enter(ContainerPtr container, ExecOptions options, bool is_probe);
  Task<StreamPtr> launch(ExecPtr exec, bool attached, ExecTerminalSize size);
  Task<StreamPtr> start_in_shim(ExecPtr exec, runtime::ShimClient shim, bool attached, ExecTerminalSize size);
  Task<std::shared_ptr<const runtime::Confinement>> confinement_of(ContainerPtr container);
  Task<void> watch(ExecPtr exec, ContainerPtr container, runtime::ShimClient shim);
  Task<void> tell_end(ExecPtr exec);
  Task<std::optional<runtime::ExecState>> settled(runtime::ShimClient shim, std::string shim_id);
  Task<void> remove_in_shim(runtime::ShimClient shim, std::string shim_id);
  void mark_running(const ExecPtr& exec, const ContainerPtr& container);
  void mark_ended(Exec& exec, int exit_code);
  void publish(const Exec& exec, std::string action, std::map<std::string, std::string> extra = {});
  Task<void> kill_pid(runtime::ShimClient shim, std::int64_t pid);
  void make_room();
  void erase(const std::vector<ExecPtr>& old);
  Task<void> collect();
  using Files = std::vector<std::pair<std::string, std::string>>;
  Task<void> adopt(ContainerPtr container, Files files);
  void adopt_one(const ExecPtr& exec, const ContainerPtr& container, const runtime::ExecState& state, bool told);
  sys::Path directory(const std::string& container_id) const { return services_.paths.shim(container_id) / "execs"; }

  Services& services_;
  ContainerStore& store_;
  Lifecycle& lifecycle_;
  std::unordered_map<std::string, ExecPtr> by_id_;
  struct Confined {
    std::uint64_t start = 0;  // of the container
    std::shared_ptr<const runtime::Confinement> how;
  };
  std::unordered_map<std::string, Confined> confined_;  // by container, since its last start
  runtime::ConfinementReader confinements_;
  std::uint64_t created_ = 0;
  async::TaskGroup tasks_;
};

}  // namespace gantry::engine
