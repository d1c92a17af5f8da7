#include "runtime/shim_client.hpp"

#include <algorithm>

#include <boost/asio/buffer.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "base/error.hpp"
#include "sys/unix_socket.hpp"

namespace gantry::runtime {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using protocol::Message;
using protocol::Tag;
using protocol::Type;
using std::chrono::milliseconds;
using Socket = asio::local::stream_protocol::socket;

/// Closes a socket when its time is over, which ends whatever waits on it.
///
/// A timer beside the coroutine, not around it: the call that it guards then fails at once when the shim goes away.
class Deadline {
 public:
  Deadline(Socket& socket, milliseconds limit) : state_(std::make_shared<State>(socket, limit)) {
    state_->timer.async_wait([state = state_](error_code ec) {
      if (ec || state->socket == nullptr) return;
      state->expired = true;
      error_code ignored;
      state->socket->close(ignored);
    });
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  ~Deadline() {
    state_->socket = nullptr;
    state_->timer.cancel();
  }
  bool expired() const noexcept { return state_->expired; }

 private:
  struct State {
    State(Socket& guarded, milliseconds limit) : socket(&guarded), timer(guarded.get_executor(), limit) {}
    Socket* socket;
    asio::steady_timer timer;
    bool expired = false;
  };
  std::shared_ptr<State> state_;
};

[[noreturn]] void gone() { throw Error(Errc::unavailable, "the container's shim is gone"); }

Errc errc_of(protocol::ErrorCode code) {
  switch (code) {
    case protocol::ErrorCode::invalid_argument: return Errc::invalid_argument;
    case protocol::ErrorCode::not_found: return Errc::not_found;
    case protocol::ErrorCode::conflict: return Errc::conflict;
    case protocol::ErrorCode::unsupported: return Errc::not_implemented;
    case protocol::ErrorCode::timed_out: return Errc::timed_out;
    case protocol::ErrorCode::internal:
    case protocol::ErrorCode::runtime_failure: break;
  }
  return Errc::internal;
}

bool is_runtime_failure(const Message& message) {
  return message.type() == Type::error &&
         message.number(Tag::error_code) == static_cast<std::uint64_t>(protocol::ErrorCode::runtime_failure);
}

/// Throws what the shim answered, unless it is a success.
void require_success(const Message& message) {
  if (message.type() == Type::ok) return;
  const std::uint64_t code = message.number(Tag::error_code);
  throw Error(errc_of(code <= 6 ? static_cast<protocol::ErrorCode>(code) : protocol::ErrorCode::internal),
              message.text(Tag::message));
}

/// Reads exactly one frame, not a byte more: what follows on an attached connection is the stream.
Task<Message> read_message(Socket* socket) {
  std::string header(protocol::kHeaderSize, '\0');
  error_code ec;
  std::size_t have = 0;
  std::size_t wanted = header.size();
  protocol::Decoder decoder;
  for (;;) {
    header.resize(wanted);
    while (have < wanted) {
      const std::size_t got = co_await socket->async_read_some(asio::buffer(header.data() + have, wanted - have),
                                                               asio::redirect_error(asio::use_awaitable, ec));
      if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
      if (ec || got == 0) gone();
      have += got;
    }
    decoder.feed(header);
    if (auto message = decoder.next()) co_return std::move(*message);
    if (wanted != protocol::kHeaderSize) throw Error(Errc::corrupted, "the container's shim sent a malformed answer");
    // The header is complete: its length field tells how much is missing.
    std::uint32_t length = 0;
    for (int i = 0; i < 4; ++i) length = length << 8 | static_cast<unsigned char>(header[static_cast<std::size_t>(i)]);
    wanted = length + 4 - protocol::kHeaderSize;
    have = 0;
  }
}

Task<Message> talk(Socket* socket, Message request) {
  error_code ec;
  const std::string bytes = request.encode();
  co_await asio::async_write(*socket, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
  // A shim that refuses the request may have answered and closed before it took all of it.
  co_return co_await read_message(socket);
}

/// talk() within a time.
Task<Message> talk_within(Socket* socket, Message request, milliseconds limit) {
  const Deadline deadline(*socket, limit);
  try {
    co_return co_await talk(socket, std::move(request));
  } catch (const boost::system::system_error&) {
    if (!deadline.expired()) throw;
  } catch (const Error&) {
    if (!deadline.expired()) throw;
  }
  throw Error(Errc::timed_out, "the container's shim did not answer within " + std::to_string(limit.count()) + " ms");
}

Message with_exec(Type type, const std::string& exec_id) {
  Message message(type, 1);
  if (!exec_id.empty()) message.put(Tag::exec_id, exec_id);
  return message;
}

}  // namespace

// ---- AttachStream

Task<std::size_t> AttachStream::read(char* into, std::size_t size) {
  error_code ec;
  const std::size_t got =
      co_await socket_.async_read_some(asio::buffer(into, size), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
  co_return ec ? 0 : got;
}

Task<void> AttachStream::write(std::string bytes) {
  error_code ec;
  co_await asio::async_write(socket_, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
  if (ec) throw Error(Errc::unavailable, "the process takes no input any more");
}

void AttachStream::close_write() noexcept {
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void AttachStream::close() noexcept {
  error_code ignored;
  socket_.close(ignored);
}

// ---- calls

Task<ShimClient::Socket> ShimClient::dial() {
  Socket socket(co_await asio::this_coro::executor);
  sys::Fd fd;
  try {
    fd = sys::connect_unix(dir_ / "socket");  // never waits
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
    gone();
  }
  socket.assign(asio::local::stream_protocol(), fd.get());
  fd.release();
  co_return socket;
}

Task<Message> ShimClient::call(Message request, milliseconds limit) {
  Socket socket = co_await dial();
  co_return co_await talk_within(&socket, std::move(request), limit);
}

Task<Message> ShimClient::exchange(Message request) {
  Socket socket = co_await dial();
  co_return co_await talk(&socket, std::move(request));
}

Task<ShimClient> ShimClient::connect(sys::Path dir, milliseconds limit) {
  ShimClient client(std::move(dir));
  Message hello(Type::hello, 1);
  hello.put_number(Tag::version, protocol::kVersion);
  const Message answer = co_await client.call(std::move(hello), limit);
  require_success(answer);
  client.version_ = static_cast<std::uint32_t>(answer.number(Tag::version));
  if (client.version_ < protocol::kOldestVersion)
    throw Error(Errc::not_implemented,
                "the container's shim speaks version " + std::to_string(client.version_) + ", which is too old");
  for (const std::string_view feature : answer.all(Tag::feature)) client.features_.emplace_back(feature);
  co_return client;
}

bool ShimClient::has_feature(std::string_view name) const {
  return std::find(features_.begin(), features_.end(), name) != features_.end();
}

Task<StartResult> ShimClient::start(milliseconds limit) {
  const Message answer = co_await call(Message(Type::start, 1), limit);
  StartResult result;
  if (is_runtime_failure(answer)) {
    result.failure = protocol::read_failure(answer);
    co_return result;
  }
  require_success(answer);
  result.pid = static_cast<pid_t>(answer.number(Tag::pid));
  result.started_ns = static_cast<std::int64_t>(answer.number(Tag::started_ns));
  co_return result;
}

Task<void> ShimClient::kill(int signal, bool all, std::string exec_id, milliseconds limit) {
  Message request = with_exec(Type::kill, exec_id);
  request.put_number(Tag::signal, static_cast<std::uint64_t>(signal)).put_flag(Tag::all, all);
  require_success(co_await call(std::move(request), limit));
}

Task<void> ShimClient::pause(milliseconds limit) { require_success(co_await call(Message(Type::pause, 1), limit)); }

Task<void> ShimClient::resume(milliseconds limit) { require_success(co_await call(Message(Type::resume, 1), limit)); }

Task<void> ShimClient::remove(milliseconds limit) { require_success(co_await call(Message(Type::remove, 1), limit)); }

Task<ContainerState> ShimClient::state(milliseconds limit) {
  const Message answer = co_await call(Message(Type::state, 1), limit);
  require_success(answer);
  co_return protocol::read_state(answer);
}

Task<ExitRecord> ShimClient::wait(std::string exec_id) {
  const Message answer = co_await exchange(with_exec(Type::wait, exec_id));
  require_success(answer);
  const auto exit = protocol::read_exit(answer);
  if (!exit) throw Error(Errc::corrupted, "the container's shim answered a wait without an exit code");
  co_return *exit;
}

Task<std::uint64_t> ShimClient::wait_oom(std::uint64_t seen) {
  Message request(Type::wait_oom, 1);
  request.put_number(Tag::seen, seen);
  const Message answer = co_await exchange(std::move(request));
  require_success(answer);
  co_return answer.number(Tag::oom_kills);
}

Task<AttachStream> ShimClient::attach(AttachRequest request, milliseconds limit) {
  Message message(Type::attach, 1);
  protocol::put(message, request);
  Socket socket = co_await dial();
  const Message answer = co_await talk_within(&socket, std::move(message), limit);
  require_success(answer);
  co_return AttachStream(std::move(socket), answer.flag(Tag::tty));
}

Task<void> ShimClient::resize(std::uint16_t rows, std::uint16_t columns, std::string exec_id, milliseconds limit) {
  Message request = with_exec(Type::resize, exec_id);
  request.put_number(Tag::rows, rows).put_number(Tag::columns, columns);
  require_success(co_await call(std::move(request), limit));
}

Task<void> ShimClient::close_stdin(std::string exec_id, milliseconds limit) {
  require_success(co_await call(with_exec(Type::close_stdin, exec_id), limit));
}

// ---- exec

Task<void> ShimClient::exec_create(ExecRequest request, milliseconds limit) {
  Message message(Type::exec_create, 1);
  protocol::put(message, request);
  require_success(co_await call(std::move(message), limit));
}

Task<ExecStartResult> ShimClient::exec_start(std::string exec_id, milliseconds limit) {
  const Message answer = co_await call(with_exec(Type::exec_start, exec_id), limit);
  ExecStartResult result;
  if (is_runtime_failure(answer)) {
    result.failure = protocol::read_failure(answer);
    co_return result;
  }
  require_success(answer);
  result.pid = static_cast<pid_t>(answer.number(Tag::pid));
  result.started_ns = static_cast<std::int64_t>(answer.number(Tag::started_ns));
  co_return result;
}

Task<std::vector<ExecState>> ShimClient::exec_list(milliseconds limit) {
  const Message answer = co_await call(Message(Type::exec_list, 1), limit);
  require_success(answer);
  std::vector<ExecState> states;
  for (const std::string_view entry : answer.all(Tag::entry))
    states.push_back(protocol::read_exec_state(Message::decode_fields(Type::ok, 1, entry)));
  co_return states;
}

Task<ExecState> ShimClient::exec_state(std::string exec_id, milliseconds limit) {
  for (ExecState& state : co_await exec_list(limit))
    if (state.id == exec_id) co_return std::move(state);
  throw Error(Errc::not_found, "no exec " + exec_id);
}

Task<void> ShimClient::exec_remove(std::string exec_id, milliseconds limit) {
  require_success(co_await call(with_exec(Type::exec_remove, exec_id), limit));
}

// ---- the rest

Task<void> ShimClient::update(std::string resources, milliseconds limit) {
  Message request(Type::update, 1);
  request.put(Tag::resources_json, resources);
  require_success(co_await call(std::move(request), limit));
}

Task<void> ShimClient::serve_names(std::string netns, std::string names, milliseconds limit) {
  Message request(Type::serve_names, 1);
  request.put(Tag::netns, netns).put(Tag::names, names);
  require_success(co_await call(std::move(request), limit));
}

Task<void> ShimClient::retarget(std::vector<std::string> addresses, milliseconds limit) {
  Message request(Type::retarget, 1);
  for (const std::string& address : addresses) request.put(Tag::target, address);
  require_success(co_await call(std::move(request), limit));
}

Task<void> ShimClient::reopen_log(milliseconds limit) {
  require_success(co_await call(Message(Type::reopen_log, 1), limit));
}

Task<void> ShimClient::set_log_options(LogOptions options, milliseconds limit) {
  Message request(Type::set_log_options, 1);
  protocol::put(request, options);
  require_success(co_await call(std::move(request), limit));
}

Task<void> ShimClient::clear_log(milliseconds limit) {
  require_success(co_await call(Message(Type::clear_log, 1), limit));
}

Task<std::vector<pid_t>> ShimClient::pids(milliseconds limit) {
  Message request(Type::pids, 1);
  const Message answer = co_await call(request.put_flag(Tag::packed, true), limit);
  require_success(answer);
  if (const auto packed = answer.find(Tag::pids)) co_return protocol::unpack_pids(*packed);
  std::vector<pid_t> pids;
  for (const std::string_view bytes : answer.all(Tag::pid)) {
    Message one(Type::ok, 1);
    one.put(Tag::pid, bytes);
    pids.push_back(static_cast<pid_t>(one.number(Tag::pid)));
  }
  co_return pids;
}

Task<void> ShimClient::shutdown(milliseconds limit) {
  require_success(co_await call(Message(Type::shutdown, 1), limit));
}

}  // namespace gantry::runtime
