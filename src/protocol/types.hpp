#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "protocol/message.hpp"

/// What the messages carry, as plain structs, and the two small files that daemon and shim exchange.
namespace gantry::protocol {

/// Why a request failed, in terms of gantry::Errc.
enum class ErrorCode : std::uint8_t {
  internal = 0,
  invalid_argument = 1,
  not_found = 2,
  conflict = 3,
  unsupported = 4,
  timed_out = 5,
  runtime_failure = 6,  // RuntimeFailure tells more
};

/// What the OCI runtime was doing when it failed.
enum class Stage : std::uint8_t { other = 0, create = 1, start = 2, exec = 3 };

/// The kinds that Docker's clients tell apart (engine-api.md §2.1).
enum class FailureKind : std::uint8_t {
  other = 0,
  executable_not_found = 1,  // not in $PATH
  permission_denied = 2,
  is_directory = 3,
  not_directory = 4,
  no_such_file = 5,
  timed_out = 6,  // the runtime did not end in time and was killed
};

/// The runtime could not create or start a process.
struct RuntimeFailure {
  Stage stage = Stage::other;
  FailureKind kind = FailureKind::other;
  std::string path;     // what could not be executed, if the runtime named it
  std::string message;  // the runtime's own words, at most 8 KiB
  friend bool operator==(const RuntimeFailure&, const RuntimeFailure&) = default;
};

/// How a process ended.
struct ExitRecord {
  int exit_code = 0;             // 128 + n if a signal ended it
  int signal = 0;                // 0 if it ended by itself
  std::uint64_t oom_kills = 0;   // processes that the kernel killed in the container's cgroup for want of memory
  bool oom_killed = false;       // oom_kills rose and this process ended by SIGKILL
  std::int64_t finished_ns = 0;  // since 1970
  friend bool operator==(const ExitRecord&, const ExitRecord&) = default;
};

enum class Status : std::uint8_t {
  empty = 0,  // nothing created yet, or the creation failed
  creating = 1,
  created = 2,
  starting = 3,
  running = 4,
  stopped = 5,
  deleted = 6,
};

struct ContainerState {
  Status status = Status::empty;
  bool paused = false;
  pid_t pid = 0;  // on the host; 0 unless created or running
  pid_t shim_pid = 0;
  std::int64_t created_ns = 0;
  std::int64_t started_ns = 0;
  std::uint64_t oom_kills = 0;
  std::uint64_t dropped_log_bytes = 0;  // output that the log file could not take
  std::uint32_t attached = 0;           // clients attached now
  std::optional<ExitRecord> exit;
};

struct ExecState {
  std::string id;
  Status status = Status::empty;  // created (before exec_start), starting, running or stopped
  bool tty = false;
  pid_t pid = 0;
  std::int64_t started_ns = 0;
  std::optional<ExitRecord> exit;
};

struct AttachRequest {
  std::string exec_id;  // empty: the container's main process
  bool use_stdin = false;
  bool use_stdout = true;
  bool use_stderr = true;
  /// Output kept for this client while it does not read.
  std::uint64_t queue_bytes = 1 << 20;
  /// While the queue is full the process's output waits; a client that has not read half of its queue within this
  /// time is cut off. 0: cut off at once. Counted from the moment the queue is full.
  std::uint64_t patience_ms = 10'000;
};

struct ExecRequest {
  std::string exec_id;       // letters, digits, '_', '-', '.'; at most 128
  std::string process_json;  // an OCI process object, as `runc exec --process` reads it
  /// The same for the shim itself (protocol::encode_native), which is faster. Empty, or a shim that does not know it:
  /// the runtime makes the process.
  std::string native;
  bool tty = false;  // must agree with "terminal" of process_json
  bool open_stdin = false;
  std::uint16_t rows = 0;  // 0: leave the terminal's size alone
  std::uint16_t columns = 0;
};

struct LogOptions {
  std::uint64_t max_size = 0;  // bytes; 0: no limit
  std::uint32_t max_file = 1;
  friend bool operator==(const LogOptions&, const LogOptions&) = default;
};

/// A published port whose socket the shim is given: number n of the list is its descriptor 4 + n. See shim/relay.hpp.
struct PublishedPort {
  std::string proto;  // "tcp" or "udp"
  std::string target_ip;
  std::uint16_t target_port = 0;
  bool serve = true;  // false: only hold the port
  friend bool operator==(const PublishedPort&, const PublishedPort&) = default;
};

/// Everything that a shim is told before it starts; written to <dir>/config by the daemon.
struct ShimConfig {
  std::string container_id;
  std::string bundle;                     // directory with config.json
  std::string runtime_path;               // "runc" or an absolute path
  std::string runtime_root;               // --root; empty: the runtime's default
  std::vector<std::string> runtime_args;  // further global arguments
  /// Signals go straight to the process through its pidfd and pausing writes the freezer itself: right for runtimes
  /// whose pid file names the real process (runc, crun); false for sandboxes (runsc, kata).
  bool direct = true;
  bool tty = false;
  bool open_stdin = false;
  bool stdin_once = false;
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
  std::string log_path;   // empty: nothing is kept here
  std::string log_attrs;  // a JSON object put into every line as "attrs"; empty: none
  LogOptions log;
  std::string log_program;                // gantry-log
  bool log_compress = false;              // rotated files
  std::uint64_t log_buffer = 0;           // log_path is written by log_program, and so many bytes wait for it
  std::vector<std::string> log_settings;  // "key=value", for gantry-log; empty: nothing is sent away
  bool log_drops = false;                 // output is dropped rather than the container stopped
  /// Absolute cgroup directories of the container, as far as the host has them. They need not exist yet.
  std::string cgroup_memory;                   // v2, or the v1 memory hierarchy: out-of-memory events
  std::string cgroup_freezer;                  // v2, or the v1 freezer hierarchy: pause
  std::string cgroup_procs;                    // any hierarchy that every process of the container is in: pids
  std::string cgroup_shim;                     // the group that the shim itself is in, in the same hierarchy; it exists
  std::uint32_t runtime_timeout_ms = 120'000;  // after which a runtime command is killed
  std::optional<int> oom_score_adj;            // the shim's own; the container's must be in its config.json
  std::vector<PublishedPort> ports;
  /// The name server at 127.0.0.11: the container's network namespace, and its file below <exec-root>/names. Empty:
  /// none for now (see Type::serve_names).
  std::string names;
  std::string netns;

  friend bool operator==(const ShimConfig&, const ShimConfig&) = default;
};

/// Text of <dir>/config: "key value" lines, '%', newline and NUL in values written as %XX.
std::string render_config(const ShimConfig& config);
/// Skips keys that it does not know. Throws invalid_argument, naming the key.
ShimConfig parse_config(std::string_view text);

/// Text of <dir>/exit, written before anybody is told of the exit.
std::string render_exit(const ExitRecord& exit);
std::optional<ExitRecord> parse_exit(std::string_view text);

/// The `put`s add the fields of a struct to a message; the `read`s are their inverse. Reading throws invalid_argument
/// where a value is out of its range.
void put(Message& message, const RuntimeFailure& failure);
void put(Message& message, const ExitRecord& exit);
void put(Message& message, const ContainerState& state);
void put(Message& message, const ExecState& state);
void put(Message& message, const AttachRequest& request);
void put(Message& message, const ExecRequest& request);
void put(Message& message, const LogOptions& options);
RuntimeFailure read_failure(const Message& message);
/// nullopt if the message carries no exit code.
std::optional<ExitRecord> read_exit(const Message& message);
ContainerState read_state(const Message& message);
ExecState read_exec_state(const Message& message);
AttachRequest read_attach(const Message& message);
ExecRequest read_exec(const Message& message);
LogOptions read_log_options(const Message& message);

/// Tag::pids, four bytes each. Reading throws invalid_argument.
std::string pack_pids(const std::vector<pid_t>& pids);
std::vector<pid_t> unpack_pids(std::string_view bytes);

/// The 8-byte header before each piece of output on an attached connection that is not a terminal: stream (1 stdout,
/// 2 stderr), three zero bytes, length big-endian. The same as Docker's, so that it can be passed through.
inline constexpr std::size_t kStreamHeaderSize = 8;
/// Output is cut into pieces of at most this.
inline constexpr std::size_t kMaxStreamPiece = 64 << 10;
void encode_stream_header(unsigned char (&out)[kStreamHeaderSize], int stream, std::uint32_t length);

}  // namespace gantry::protocol
