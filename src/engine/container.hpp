#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/mutex.hpp"
#include "async/signal.hpp"
#include "base/ids.hpp"
#include "base/time.hpp"
#include "model/container_config.hpp"
#include "model/host_config.hpp"
#include "runtime/shim_client.hpp"
#include "sys/id_mapping.hpp"
#include "volume/mount_spec.hpp"

namespace gantry::engine {

/// Docker's words for what a container does, in the order in which they win.
enum class Status { created, running, paused, restarting, removing, exited, dead };
std::string_view status_name(Status status) noexcept;

/// One run of a health check.
struct HealthResult {
  Timestamp start{};
  Timestamp end{};
  int exit_code = 0;  // -1: it could not be run, or took too long
  std::string output;
};

enum class HealthStatus { starting, healthy, unhealthy };

/// What the health checks of one run of a container have found out.
struct HealthState {
  Timestamp run{};  // when that run was started
  HealthStatus status = HealthStatus::starting;
  std::int64_t failing_streak = 0;
  std::vector<HealthResult> log;  // the newest last
};

/// What changes while a container lives. Committed with each change; see docs/state-on-disk.md.
struct ContainerState {
  bool starting = false;  // a start was begun and neither finished nor taken back: recovery cleans up after it
  bool running = false;   // also while paused, and between two tries of a restart policy
  bool paused = false;
  bool restarting = false;
  bool oom_killed = false;
  bool dead = false;  // a removal failed half-way; it can be tried again
  std::int64_t pid = 0;
  int exit_code = 0;
  std::string error;  // why the last start failed
  Timestamp started{};
  Timestamp finished{};
  std::int64_t restart_count = 0;
  bool manually_stopped = false;      // `unless-stopped` does not start it again
  bool has_been_started = false;      // restart policies do not apply before the first start
  std::int64_t backoff_ms = 0;        // delay of the next restart; 0: the first one
  std::optional<HealthState> health;  // absent without a health check, and before the first start
};

/// How the supervisor treats the next exit, decided by the verbs that cause it. Not durable: a daemon that starts
/// again decides from manually_stopped.
enum class OnExit { follow_policy, stay_down };

/// One container. Everything here belongs to the loop thread. Between two `co_await`s a reader sees one consistent
/// state, so reads need no lock; verbs that change it hold `mutex`.
struct Container {
  // Decided at creation. `name` and the limits in `host` can change later.
  ContainerId id;
  std::string name;  // without the slash
  Timestamp created{};
  std::string image_id;   // "sha256:…"
  std::string image_ref;  // as the client wrote it
  std::string chain_id;   // its layers; empty: none
  std::string platform = "linux";
  model::ContainerConfig config;
  model::HostConfig host;
  std::map<std::string, model::EndpointSettings> networks;  // as asked for; key: network name or id
  bool left_own_network = false;                            // it was disconnected from that of its NetworkMode
  std::string path;                                         // the program …
  std::vector<std::string> args;                            // … and its arguments
  std::vector<volume::MountPoint> mounts;
  std::string log_path;       // empty unless the driver writes a file here
  sys::IdMapping id_mapping;  // of its user namespace; empty: it has none of its own

  ContainerState state;

  // Not stored.
  async::Mutex mutex;
  /// Notified after every change of `state`, `removed` or the shim.
  async::Signal changed;
  std::optional<runtime::ShimClient> shim;  // from the moment it can be attached to until the exit is recorded
  /// Throws conflict, as Docker words it, if there is none.
  runtime::ShimClient live_shim() const;
  std::uint64_t starts = 0;  // counts shims: an attach to start n is over when starts > n
  std::uint64_t exits = 0;   // counts exits, for `wait`
  /// The exit is recorded, but the root file system, volumes and the shim are still being taken down.
  bool releasing = false;
  bool removed = false;
  bool removing = false;
  std::string removal_error;
  OnExit on_exit = OnExit::follow_policy;
  /// A stop or kill that came while a restart policy waits ends the waiting through this.
  bool cancel_restart = false;
  /// Sessions that want to see the next start from its first byte: the start lets them attach before the process runs.
  std::size_t waiting_attachments = 0;
  bool manual_restart = false;  // `docker restart` stops it: --rm does not fire
  std::set<std::string> execs;  // ids of those that have not ended; health checks are not among them

  bool is_running() const noexcept { return state.running; }
  Status status() const noexcept;
  /// The exit code, as inspect shows it.
  const std::map<std::string, std::string>& labels() const;
  bool tty() const noexcept { return config.Tty; }
  std::string network_mode() const { return host.NetworkMode.empty() ? "bridge" : host.NetworkMode; }
  /// Its own, or the daemon's.
  const std::string& cgroup_parent(const std::string& of_daemon) const noexcept {
    return host.CgroupParent.empty() ? of_daemon : host.CgroupParent;
  }
  /// "healthy", "unhealthy", "starting"; "none" without a health check. Not healthy when it does not run, as in Docker.
  std::string_view health_text() const noexcept;
  /// "Up 3 minutes", "Exited (0) 2 days ago" …: the text of `docker ps`.
  std::string status_text(Timestamp at) const;
};

using ContainerPtr = std::shared_ptr<Container>;
using ContainerWeak = std::weak_ptr<Container>;

}  // namespace gantry::engine
