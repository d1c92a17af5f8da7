#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The frames between gantryd and gantry-shim: docs/shim-protocol.md. Pure encoding, no I/O; used by both ends.
namespace gantry::protocol {

/// Bumped when a message changes its meaning. New tags and new message types need no bump: the other end skips a tag
/// that it does not know and answers an unknown request with ErrorCode::unsupported.
inline constexpr std::uint32_t kVersion = 1;
/// The oldest shim that this daemon adopts.
inline constexpr std::uint32_t kOldestVersion = 1;

/// A frame is u32 length (of what follows it), u16 type, u32 request id, fields. Numbers are big-endian.
inline constexpr std::size_t kHeaderSize = 10;
inline constexpr std::size_t kMaxFrame = 4u << 20;
inline constexpr std::size_t kMaxFields = 1024;

enum class Type : std::uint16_t {
  hello = 1,
  start = 3,  // 2 was `create`, which is part of it now
  kill = 4,
  pause = 5,
  resume = 6,
  remove = 7,
  state = 8,
  wait = 9,
  attach = 10,
  resize = 11,
  close_stdin = 12,
  exec_create = 13,
  exec_start = 14,
  exec_list = 15,
  exec_remove = 16,
  update = 17,
  reopen_log = 18,
  set_log_options = 19,
  clear_log = 20,
  pids = 21,
  wait_oom = 22,
  shutdown = 23,
  serve_names = 24,
  retarget = 25,
  ok = 0x8000,
  error = 0x8001,
};

/// Field names. A value is a byte string; numbers are its eight bytes, flags a number 0 or 1.
enum class Tag : std::uint16_t {
  version = 1,
  feature = 2,  // repeated
  pid = 3,
  shim_pid = 4,
  signal = 5,
  all = 6,
  exec_id = 7,
  status = 8,
  created_ns = 9,
  started_ns = 10,
  finished_ns = 11,
  exit_code = 12,
  exit_signal = 13,
  oom_kills = 14,
  oom_killed = 15,
  paused = 16,
  use_stdin = 17,
  use_stdout = 18,
  use_stderr = 19,
  queue_bytes = 20,
  patience_ms = 21,
  rows = 22,
  columns = 23,
  process_json = 24,
  tty = 25,
  open_stdin = 26,
  resources_json = 27,
  max_size = 28,
  max_file = 29,
  dropped_log_bytes = 30,
  seen = 31,
  error_code = 32,
  message = 33,
  stage = 34,
  kind = 35,
  path = 36,
  entry = 37,  // repeated: one nested list of fields
  attached = 38,
  names = 39,
  netns = 40,
  packed = 41,  // pids: the answer may be one field
  pids = 42,    // four bytes each
  target = 43,  // repeated
  // A process that the shim makes itself (protocol/native_process.hpp). Lists of texts end each with a NUL.
  native = 60,  // nested: the fields below
  args = 61,
  env = 62,
  directory = 63,
  uid = 64,
  gid = 65,
  groups = 66,  // four bytes each
  umask = 67,
  bounding = 68,
  permitted = 69,
  effective = 70,
  inheritable = 71,
  ambient = 72,
  no_new_privileges = 73,
  limits = 74,  // twenty bytes each: resource, soft, hard
  oom_score_adj = 75,
  filter = 76,
  filter_flags = 77,
  apparmor = 78,
  selinux = 79,
  cgroups_v1 = 80,
  cgroup_v2 = 81,
  cgroup_v2_mount = 82,
};

/// One frame in memory.
class Message {
 public:
  Message() = default;
  Message(Type type, std::uint32_t request) : type_(type), request_(request) {}

  Type type() const noexcept { return type_; }
  std::uint32_t request() const noexcept { return request_; }

  Message& put(Tag tag, std::string_view text);
  Message& put_number(Tag tag, std::uint64_t number);
  Message& put_flag(Tag tag, bool value) { return put_number(tag, value ? 1 : 0); }

  /// The first field of that name.
  std::optional<std::string_view> find(Tag tag) const;
  /// "" if absent.
  std::string text(Tag tag) const;
  /// `fallback` if absent. Throws invalid_argument if it is not eight bytes.
  std::uint64_t number(Tag tag, std::uint64_t fallback = 0) const;
  bool flag(Tag tag, bool fallback = false) const { return number(tag, fallback ? 1 : 0) != 0; }
  std::vector<std::string_view> all(Tag tag) const;

  /// The whole frame, header included. Throws invalid_argument if it exceeds kMaxFrame.
  std::string encode() const;
  /// Only the fields, as they are put into Tag::entry.
  std::string encode_fields() const;
  /// Reads what encode_fields gave. Throws invalid_argument.
  static Message decode_fields(Type type, std::uint32_t request, std::string_view bytes);

 private:
  Type type_ = Type::ok;
  std::uint32_t request_ = 0;
  std::vector<std::pair<Tag, std::string>> fields_;
};

/// Cuts a byte stream into messages. Holds at most one frame of kMaxFrame bytes and what was fed last, if next() is
/// called until it gives nothing after each feed().
class Decoder {
 public:
  void feed(std::string_view bytes);
  /// The next whole message. Throws invalid_argument if it is malformed, and as soon as a header announces too much;
  /// the connection cannot be used afterwards.
  std::optional<Message> next();
  /// Bytes that belong to no frame yet. On a connection that became a stream they are the first of the stream.
  std::string take_rest();
  std::size_t buffered() const noexcept { return buffer_.size() - consumed_; }

 private:
  std::string buffer_;
  std::size_t consumed_ = 0;
};

}  // namespace gantry::protocol
