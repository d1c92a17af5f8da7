#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/local/stream_protocol.hpp>

#include "async/task.hpp"
#include "protocol/types.hpp"
#include "sys/file.hpp"

/// The daemon's end of a gantry-shim (docs/shim-protocol.md): one shim per container that was started.
///
/// Life: spawn_shim_blocking → ShimClient::connect → attach (as many as wanted) → start → wait → remove → shutdown. A daemon that starts again finds <exec-root>/shims/<id>/ and begins at connect.
namespace gantry::runtime {

using protocol::AttachRequest;
using protocol::ContainerState;
using protocol::ExecRequest;
using protocol::ExecState;
using protocol::ExitRecord;
using protocol::FailureKind;
using protocol::LogOptions;
using protocol::RuntimeFailure;
using protocol::ShimConfig;
using ShimStatus = protocol::Status;
using RuntimeStage = protocol::Stage;

/// Deadlines of calls that run no program. The shim answers them from memory, in well under a millisecond.
inline constexpr std::chrono::milliseconds kShimQuick{5'000};
/// Deadlines of calls that run the OCI runtime. Longer than ShimConfig::runtime_timeout_ms: normally the shim gives
/// up first and says why.
inline constexpr std::chrono::milliseconds kShimRuntime{130'000};

/// Writes `<dir>/config`, starts gantry-shim and waits until its socket listens. `dir` is made if it is missing
/// (mode 0700); a stale socket, exit or pid file in it is removed first. `sockets` are the published ports' sockets, in
/// the order of `config.ports`; the shim gets copies.
/// Throws invalid_argument for a config that cannot be written; internal with the shim's own words if it fails to
/// start; timed_out. Blocks  a few milliseconds, at most `limit`: call it in a lane.
void spawn_shim_blocking(const sys::Path& shim_program, const sys::Path& dir, const ShimConfig& config,
                         std::chrono::milliseconds limit = std::chrono::seconds(10),
                         const std::vector<int>& sockets = {});

/// What the shim left about the end of its container; nullopt if it has not ended (or the shim was killed before).
/// Blocks  on a small read.
std::optional<ExitRecord> read_exit_blocking(const sys::Path& dir);
/// The shim's pid according to its pid file, if that process still is the shim of this directory.
std::optional<pid_t> find_shim_blocking(const sys::Path& dir);

/// A runtime step either worked or failed in the runtime's own way; trouble with the shim itself throws.
struct StartResult {
  pid_t pid = 0;
  std::int64_t started_ns = 0;
  std::optional<RuntimeFailure> failure;
};
struct ExecStartResult {
  pid_t pid = 0;
  std::int64_t started_ns = 0;
  std::optional<RuntimeFailure> failure;
};

/// A connection that carries a process's streams. After the attach: the peer sends output (frames as of
/// protocol::encode_stream_header, or raw bytes if the process has a terminal) until the process has ended, and then
/// closes; what is written is the process's input. Destroying it detaches.
class AttachStream {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;
  explicit AttachStream(Socket socket, bool tty) : socket_(std::move(socket)), tty_(tty) {}

  /// For splicing. Nothing is buffered beside it.
  Socket& socket() noexcept { return socket_; }
  bool tty() const noexcept { return tty_; }
  /// Some bytes of output; 0 at the end of the stream (also when the shim is gone or cut this client off).
  Task<std::size_t> read(char* into, std::size_t size);
  /// All of `bytes`; waits while the process does not read. Throws unavailable when the process's end is closed.
  Task<void> write(std::string bytes);
  /// End of input. See ShimConfig::stdin_once for what it does.
  void close_write() noexcept;
  void close() noexcept;

 private:
  Socket socket_;
  bool tty_;
};

/// Every call uses a connection of its own, so a call that is cancelled or times out disturbs no other. Calls throw
///   unavailable  the shim is gone or refuses connections
///   timed_out    it did not answer within `limit` (a stopped shim, a hung disk)
///   not_found, conflict, invalid_argument, not_implemented, internal  as answered by the shim
/// Cheap to copy. Loop thread only.
class ShimClient {
 public:
  /// Does not connect yet.
  explicit ShimClient(sys::Path dir) : dir_(std::move(dir)) {}

  /// Connects and agrees on the protocol. Throws not_implemented for a shim that is too old.
  static Task<ShimClient> connect(sys::Path dir, std::chrono::milliseconds limit = kShimQuick);

  const sys::Path& dir() const noexcept { return dir_; }
  std::uint32_t version() const noexcept { return version_; }
  bool has_feature(std::string_view name) const;

  /// Makes the container and runs its process. A container that failed may not be started again by the same shim.
  Task<StartResult> start(std::chrono::milliseconds limit = kShimRuntime);
  /// `exec_id` empty: the main process. `all`: every process of the container. Throws conflict if it does not run.
  Task<void> kill(int signal, bool all = false, std::string exec_id = {}, std::chrono::milliseconds limit = kShimQuick);
  Task<void> pause(std::chrono::milliseconds limit = kShimQuick);
  Task<void> resume(std::chrono::milliseconds limit = kShimQuick);
  /// `runtime delete --force`: also ends one whose start hangs. Idempotent.
  Task<void> remove(std::chrono::milliseconds limit = kShimRuntime);
  Task<ContainerState> state(std::chrono::milliseconds limit = kShimQuick);
  /// Resumes when the process has ended, its output is flushed and (main process) its attach streams are closed.
  /// Answers at once if that was before. No deadline: it ends when the process or the shim does, or when cancelled.
  Task<ExitRecord> wait(std::string exec_id = {});
  /// Resumes when the number of out-of-memory kills is above `seen`, and returns it. No deadline; throws conflict when
  /// the container ends first.
  Task<std::uint64_t> wait_oom(std::uint64_t seen);

  /// Possible from the shim's start (or exec_create) to the end of the process. Attach before start loses no output.
  Task<AttachStream> attach(AttachRequest request, std::chrono::milliseconds limit = kShimQuick);
  /// Before the terminal exists the size is kept and applied when it does. Throws conflict without a terminal.
  Task<void> resize(std::uint16_t rows, std::uint16_t columns, std::string exec_id = {},
                    std::chrono::milliseconds limit = kShimQuick);
  Task<void> close_stdin(std::string exec_id = {}, std::chrono::milliseconds limit = kShimQuick);

  /// Registers an exec; then attach to it (optional) and exec_start it. A failed or ended exec keeps its state until
  /// exec_remove, or until 128 newer ones have ended.
  Task<void> exec_create(ExecRequest request, std::chrono::milliseconds limit = kShimQuick);
  Task<ExecStartResult> exec_start(std::string exec_id, std::chrono::milliseconds limit = kShimRuntime);
  Task<std::vector<ExecState>> exec_list(std::chrono::milliseconds limit = kShimQuick);
  /// Throws not_found.
  Task<ExecState> exec_state(std::string exec_id, std::chrono::milliseconds limit = kShimQuick);
  /// Conflict while it runs; fine if it is unknown.
  Task<void> exec_remove(std::string exec_id, std::chrono::milliseconds limit = kShimQuick);

  /// `resources` is an OCI LinuxResources object. A runtime that refuses it gives internal with its text.
  Task<void> update(std::string resources, std::chrono::milliseconds limit = kShimRuntime);
  Task<void> reopen_log(std::chrono::milliseconds limit = kShimQuick);
  Task<void> set_log_options(LogOptions options, std::chrono::milliseconds limit = kShimQuick);
  /// Empties the log: removes rotated files and starts a new one.
  Task<void> clear_log(std::chrono::milliseconds limit = kShimQuick);
  /// Every process in the container's cgroup, sub-cgroups included.
  Task<std::vector<pid_t>> pids(std::chrono::milliseconds limit = kShimQuick);
  /// Starts the name server at 127.0.0.11 of the network namespace `netns`, if it does not serve yet. `names` is the
  /// container's file below <exec-root>/names.
  Task<void> serve_names(std::string netns, std::string names, std::chrono::milliseconds limit = kShimQuick);
  /// From now on the loopback relay of published ports leads to these addresses, each for the ports of its family.
  /// Throws not_implemented if the shim is too old to know.
  Task<void> retarget(std::vector<std::string> addresses, std::chrono::milliseconds limit = kShimQuick);
  /// Ends the shim. Throws conflict while a container exists (created, running, paused).
  Task<void> shutdown(std::chrono::milliseconds limit = kShimQuick);

 private:
  using Socket = boost::asio::local::stream_protocol::socket;
  Task<Socket> dial();
  Task<protocol::Message> call(protocol::Message request, std::chrono::milliseconds limit);
  Task<protocol::Message> exchange(protocol::Message request);

  sys::Path dir_;
  std::uint32_t version_ = 0;
  std::vector<std::string> features_;
};

}  // namespace gantry::runtime
