#include "protocol/types.hpp"

#include <limits>

#include "base/error.hpp"

namespace gantry::protocol {
namespace {

/// The number in `tag`, which must be at most `limit`.
std::uint64_t bounded(const Message& message, Tag tag, std::uint64_t limit, std::uint64_t fallback = 0) {
  const std::uint64_t value = message.number(tag, fallback);
  if (value > limit)
    throw Error(Errc::invalid_argument,
                "malformed message: field " + std::to_string(static_cast<int>(tag)) + " is out of range");
  return value;
}

template <class Enum>
Enum enumerator(const Message& message, Tag tag, Enum last) {
  return static_cast<Enum>(bounded(message, tag, static_cast<std::uint64_t>(last)));
}

std::int64_t signed_number(const Message& message, Tag tag) { return static_cast<std::int64_t>(message.number(tag)); }

bool valid_exec_id(std::string_view id) {
  if (id.empty() || id.size() > 128 || id.front() == '.') return false;
  for (const char c : id) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!word && c != '_' && c != '-' && c != '.') return false;
  }
  return true;
}

constexpr std::uint64_t kMaxPid = std::numeric_limits<std::int32_t>::max();

}  // namespace

void put(Message& message, const RuntimeFailure& failure) {
  message.put_number(Tag::stage, static_cast<std::uint64_t>(failure.stage));
  message.put_number(Tag::kind, static_cast<std::uint64_t>(failure.kind));
  message.put(Tag::path, failure.path);
  message.put(Tag::message, failure.message);
}

RuntimeFailure read_failure(const Message& message) {
  RuntimeFailure failure;
  failure.stage = enumerator(message, Tag::stage, Stage::exec);
  failure.kind = enumerator(message, Tag::kind, FailureKind::timed_out);
  failure.path = message.text(Tag::path);
  failure.message = message.text(Tag::message);
  return failure;
}

void put(Message& message, const ExitRecord& exit) {
  message.put_number(Tag::exit_code, static_cast<std::uint64_t>(exit.exit_code));
  message.put_number(Tag::exit_signal, static_cast<std::uint64_t>(exit.signal));
  message.put_number(Tag::oom_kills, exit.oom_kills);
  message.put_flag(Tag::oom_killed, exit.oom_killed);
  message.put_number(Tag::finished_ns, static_cast<std::uint64_t>(exit.finished_ns));
}

std::optional<ExitRecord> read_exit(const Message& message) {
  if (!message.find(Tag::exit_code)) return std::nullopt;
  ExitRecord exit;
  exit.exit_code = static_cast<int>(bounded(message, Tag::exit_code, 255));
  exit.signal = static_cast<int>(bounded(message, Tag::exit_signal, 127));
  exit.oom_kills = message.number(Tag::oom_kills);
  exit.oom_killed = message.flag(Tag::oom_killed);
  exit.finished_ns = signed_number(message, Tag::finished_ns);
  return exit;
}

void put(Message& message, const ContainerState& state) {
  message.put_number(Tag::status, static_cast<std::uint64_t>(state.status));
  message.put_flag(Tag::paused, state.paused);
  message.put_number(Tag::pid, static_cast<std::uint64_t>(state.pid));
  message.put_number(Tag::shim_pid, static_cast<std::uint64_t>(state.shim_pid));
  message.put_number(Tag::created_ns, static_cast<std::uint64_t>(state.created_ns));
  message.put_number(Tag::started_ns, static_cast<std::uint64_t>(state.started_ns));
  message.put_number(Tag::dropped_log_bytes, state.dropped_log_bytes);
  message.put_number(Tag::attached, state.attached);
  if (state.exit) put(message, *state.exit);
  else message.put_number(Tag::oom_kills, state.oom_kills);
}

ContainerState read_state(const Message& message) {
  ContainerState state;
  state.status = enumerator(message, Tag::status, Status::deleted);
  state.paused = message.flag(Tag::paused);
  state.pid = static_cast<pid_t>(bounded(message, Tag::pid, kMaxPid));
  state.shim_pid = static_cast<pid_t>(bounded(message, Tag::shim_pid, kMaxPid));
  state.created_ns = signed_number(message, Tag::created_ns);
  state.started_ns = signed_number(message, Tag::started_ns);
  state.oom_kills = message.number(Tag::oom_kills);
  state.dropped_log_bytes = message.number(Tag::dropped_log_bytes);
  state.attached = static_cast<std::uint32_t>(bounded(message, Tag::attached, 0xffff'ffff));
  state.exit = read_exit(message);
  return state;
}

void put(Message& message, const ExecState& state) {
  message.put(Tag::exec_id, state.id);
  message.put_number(Tag::status, static_cast<std::uint64_t>(state.status));
  message.put_flag(Tag::tty, state.tty);
  message.put_number(Tag::pid, static_cast<std::uint64_t>(state.pid));
  message.put_number(Tag::started_ns, static_cast<std::uint64_t>(state.started_ns));
  if (state.exit) put(message, *state.exit);
}

ExecState read_exec_state(const Message& message) {
  ExecState state;
  state.id = message.text(Tag::exec_id);
  state.status = enumerator(message, Tag::status, Status::deleted);
  state.tty = message.flag(Tag::tty);
  state.pid = static_cast<pid_t>(bounded(message, Tag::pid, kMaxPid));
  state.started_ns = signed_number(message, Tag::started_ns);
  state.exit = read_exit(message);
  return state;
}

void put(Message& message, const AttachRequest& request) {
  if (!request.exec_id.empty()) message.put(Tag::exec_id, request.exec_id);
  message.put_flag(Tag::use_stdin, request.use_stdin);
  message.put_flag(Tag::use_stdout, request.use_stdout);
  message.put_flag(Tag::use_stderr, request.use_stderr);
  message.put_number(Tag::queue_bytes, request.queue_bytes);
  message.put_number(Tag::patience_ms, request.patience_ms);
}

AttachRequest read_attach(const Message& message) {
  AttachRequest request;
  request.exec_id = message.text(Tag::exec_id);
  request.use_stdin = message.flag(Tag::use_stdin);
  request.use_stdout = message.flag(Tag::use_stdout, true);
  request.use_stderr = message.flag(Tag::use_stderr, true);
  request.queue_bytes = bounded(message, Tag::queue_bytes, 64u << 20, request.queue_bytes);
  request.patience_ms = bounded(message, Tag::patience_ms, 3'600'000, request.patience_ms);
  return request;
}

void put(Message& message, const ExecRequest& request) {
  message.put(Tag::exec_id, request.exec_id);
  message.put(Tag::process_json, request.process_json);
  if (!request.native.empty()) message.put(Tag::native, request.native);
  message.put_flag(Tag::tty, request.tty);
  message.put_flag(Tag::open_stdin, request.open_stdin);
  message.put_number(Tag::rows, request.rows);
  message.put_number(Tag::columns, request.columns);
}

ExecRequest read_exec(const Message& message) {
  ExecRequest request;
  request.exec_id = message.text(Tag::exec_id);
  if (!valid_exec_id(request.exec_id)) throw Error(Errc::invalid_argument, "invalid exec id");
  request.process_json = message.text(Tag::process_json);
  request.native = message.text(Tag::native);
  request.tty = message.flag(Tag::tty);
  request.open_stdin = message.flag(Tag::open_stdin);
  request.rows = static_cast<std::uint16_t>(bounded(message, Tag::rows, 0xffff));
  request.columns = static_cast<std::uint16_t>(bounded(message, Tag::columns, 0xffff));
  return request;
}

void put(Message& message, const LogOptions& options) {
  message.put_number(Tag::max_size, options.max_size);
  message.put_number(Tag::max_file, options.max_file);
}

LogOptions read_log_options(const Message& message) {
  LogOptions options;
  options.max_size = bounded(message, Tag::max_size, std::uint64_t{1} << 62);
  options.max_file = static_cast<std::uint32_t>(bounded(message, Tag::max_file, 1000, 1));
  if (options.max_file == 0) throw Error(Errc::invalid_argument, "max-file must be at least 1");
  return options;
}

std::string pack_pids(const std::vector<pid_t>& pids) {
  std::string out;
  out.reserve(pids.size() * 4);
  for (const pid_t pid : pids)
    for (int shift = 24; shift >= 0; shift -= 8)
      out.push_back(static_cast<char>(static_cast<unsigned>(pid) >> shift & 0xff));
  return out;
}

std::vector<pid_t> unpack_pids(std::string_view bytes) {
  if (bytes.size() % 4 != 0) throw Error(Errc::invalid_argument, "malformed message: a list of pids is cut short");
  std::vector<pid_t> pids;
  pids.reserve(bytes.size() / 4);
  for (; !bytes.empty(); bytes.remove_prefix(4)) {
    std::uint32_t pid = 0;
    for (const char c : bytes.substr(0, 4)) pid = pid << 8 | static_cast<unsigned char>(c);
    if (pid == 0 || pid > kMaxPid) throw Error(Errc::invalid_argument, "malformed message: a pid is out of range");
    pids.push_back(static_cast<pid_t>(pid));
  }
  return pids;
}

void encode_stream_header(unsigned char (&out)[kStreamHeaderSize], int stream, std::uint32_t length) {
  out[0] = static_cast<unsigned char>(stream);
  out[1] = out[2] = out[3] = 0;
  out[4] = static_cast<unsigned char>(length >> 24);
  out[5] = static_cast<unsigned char>(length >> 16);
  out[6] = static_cast<unsigned char>(length >> 8);
  out[7] = static_cast<unsigned char>(length);
}

}  // namespace gantry::protocol
