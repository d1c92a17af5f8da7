#include "shim/server.hpp"

#include <cerrno>

#include <sys/socket.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "sys/unix_socket.hpp"

namespace gantry::shim {
namespace {

using protocol::ErrorCode;
using protocol::Message;
using protocol::Tag;
using protocol::Type;

constexpr std::size_t kMaxConnections = 1024;
constexpr std::size_t kMaxOutput = 8 << 20;

constexpr const char* kFeatures[] = {"attach", "exec", "oom", "log-clear", "patience", "names", "native-exec"};

ErrorCode error_code(Errc code) {
  switch (code) {
    case Errc::invalid_argument: return ErrorCode::invalid_argument;
    case Errc::not_found: return ErrorCode::not_found;
    case Errc::conflict: return ErrorCode::conflict;
    case Errc::not_implemented: return ErrorCode::unsupported;
    case Errc::timed_out: return ErrorCode::timed_out;
    default: return ErrorCode::internal;
  }
}

}  // namespace

// ---- answers

void Reply::send(const Message& message) const { server_->send(connection_, message); }

bool Reply::alive() const { return server_->has(connection_); }

void Reply::fail(ErrorCode code, const std::string& text) const {
  Message message(Type::error, request_);
  send(message.put_number(Tag::error_code, static_cast<std::uint64_t>(code)).put(Tag::message, text));
}

void Reply::fail(const protocol::RuntimeFailure& failure) const {
  Message message(Type::error, request_);
  message.put_number(Tag::error_code, static_cast<std::uint64_t>(ErrorCode::runtime_failure));
  protocol::put(message, failure);
  send(message);
}

// ---- connections

Server::Server(Loop& loop, Container& container, dns::NameServer& names, sys::Path socket,
               std::function<void()> release_ports)
    : loop_(loop),
      container_(container),
      names_(names),
      socket_(std::move(socket)),
      release_ports_(std::move(release_ports)),
      listener_(sys::listen_unix(socket_)) {
  watch_ = loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_all(); });
}

Server::~Server() = default;

void Server::accept_all() {
  try {
    accept_waiting();
  } catch (const Error& e) {
    // Out of descriptors, mostly: the connection goes on waiting, so look again later instead of at once.
    log::error("{}", e.message());
    watch_.change(Watch::kOff);
    accept_again_ = loop_.after(std::chrono::milliseconds(500), [this] { watch_.change(EPOLLIN); });
  }
}

void Server::accept_waiting() {
  while (auto fd = sys::accept_unix(listener_.get())) {
    if (connections_.size() >= kMaxConnections) continue;
    const std::uint64_t id = next_id_++;
    auto connection = std::make_unique<Connection>();
    connection->fd = std::move(*fd);
    connection->watch =
        loop_.watch(connection->fd.get(), EPOLLIN, [this, id](std::uint32_t events) { on_event(id, events); });
    connections_[id] = std::move(connection);
  }
}

void Server::on_event(std::uint64_t id, std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush(id);
  if (has(id) && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_from(id);
}

void Server::read_from(std::uint64_t id) {
  char buffer[16 << 10];
  const ssize_t got = ::recv(connections_.at(id)->fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close(id);
  try {
    connections_.at(id)->decoder.feed({buffer, static_cast<std::size_t>(got)});
    // A request may turn the connection into a stream, or close it.
    while (has(id) && !connections_.at(id)->closing) {
      const auto request = connections_.at(id)->decoder.next();
      if (!request) break;
      handle(id, *request);
    }
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument || !has(id)) throw;
    Reply(*this, id, 0).fail(ErrorCode::invalid_argument, e.message());
    if (!has(id)) return;
    connections_.at(id)->closing = true;
    flush(id);
  }
}

void Server::send(std::uint64_t id, const Message& message) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  it->second->output += message.encode();
  flush(id);
}

void Server::flush(std::uint64_t id) {
  Connection& connection = *connections_.at(id);
  std::string& output = connection.output;
  while (!output.empty()) {
    const ssize_t sent = ::send(connection.fd.get(), output.data(), output.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) return close(id);
    output.erase(0, static_cast<std::size_t>(sent));
  }
  if (output.size() > kMaxOutput || (output.empty() && connection.closing)) return close(id);
  // A peer that does not read its answers gets no more requests handled.
  connection.watch.change(output.empty() ? EPOLLIN : EPOLLOUT);
}

void Server::close(std::uint64_t id) { connections_.erase(id); }

// ---- requests

void Server::handle(std::uint64_t id, const Message& request) {
  const Reply reply(*this, id, request.request());
  try {
    dispatch(request, reply);
  } catch (const Error& e) {
    reply.fail(error_code(e.code()), e.message());
  } catch (const std::exception& e) {
    // The standard library's own (no memory, no working directory): every request gets its answer.
    reply.fail(ErrorCode::internal, e.what());
  }
}

void Server::dispatch(const Message& request, const Reply& reply) {
  switch (request.type()) {
    case Type::hello: return hello(reply);
    case Type::start: return container_.start(reply);
    case Type::kill: return kill(request, reply);
    case Type::pause: return container_.pause(true, reply);
    case Type::resume: return container_.pause(false, reply);
    case Type::remove: return container_.remove(reply);
    case Type::state: return container_.state(reply);
    case Type::attach: return attach(request, reply);
    case Type::update: return container_.update(request.text(Tag::resources_json), reply);
    case Type::pids: return container_.pids(request.flag(Tag::packed), reply);
    case Type::wait_oom: return container_.wait_oom(request.number(Tag::seen), reply);
    case Type::shutdown: return shutdown(reply);
    case Type::serve_names: names_.serve(request.text(Tag::netns), request.text(Tag::names)); return reply.ok();
    case Type::retarget:
      for (const std::string_view ip : request.all(Tag::target)) retarget_(std::string(ip));
      return reply.ok();
    case Type::reopen_log:
    case Type::set_log_options:
    case Type::clear_log: return dispatch_log(request, reply);
    case Type::wait:
    case Type::resize:
    case Type::close_stdin:
    case Type::exec_create:
    case Type::exec_start:
    case Type::exec_list:
    case Type::exec_remove: return dispatch_exec(request, reply);
    case Type::ok:
    case Type::error: break;
  }
  reply.fail(ErrorCode::unsupported,
             "this shim does not know request " + std::to_string(static_cast<int>(request.type())));
}

void Server::dispatch_log(const Message& request, const Reply& reply) {
  logs::Writer* const log = container_.log().file();
  if (log == nullptr && container_.log().writing())
    throw Error(Errc::not_implemented, "the container's log is written by another process");
  if (log != nullptr && request.type() == Type::reopen_log) log->reopen();
  if (log != nullptr && request.type() == Type::clear_log) log->clear();
  if (log != nullptr && request.type() == Type::set_log_options) {
    const protocol::LogOptions options = protocol::read_log_options(request);
    log->set_options({options.max_size, options.max_file});
  }
  reply.ok();
}

/// Requests that mean the main process or an exec.
void Server::dispatch_exec(const Message& request, const Reply& reply) {
  const std::string id = request.text(Tag::exec_id);
  switch (request.type()) {
    case Type::wait: return (id.empty() ? container_.main() : container_.execs().get(id)).wait(reply);
    case Type::resize: {
      const auto rows = static_cast<std::uint16_t>(request.number(Tag::rows));
      const auto columns = static_cast<std::uint16_t>(request.number(Tag::columns));
      if (!container_.streams(id).resize({rows, columns})) throw Error(Errc::conflict, "the process has no terminal");
      return reply.ok();
    }
    case Type::close_stdin: container_.streams(id).close_stdin(); return reply.ok();
    case Type::exec_create: container_.execs().create(protocol::read_exec(request)); return reply.ok();
    case Type::exec_start:
      if (!container_.main().alive()) throw Error(Errc::conflict, "the container is not running");
      return container_.execs().start(id, container_.main().child, reply);
    case Type::exec_list: return container_.execs().list(reply);
    case Type::exec_remove: container_.execs().remove(id); return reply.ok();
    default: return;
  }
}

void Server::hello(const Reply& reply) {
  Message message = reply.success();
  message.put_number(Tag::version, protocol::kVersion);
  message.put_number(Tag::shim_pid, static_cast<std::uint64_t>(::getpid()));
  for (const char* feature : kFeatures) message.put(Tag::feature, feature);
  reply.send(message);
}

void Server::kill(const Message& request, const Reply& reply) {
  const std::uint64_t signal = request.number(Tag::signal);
  if (signal > 64) throw Error(Errc::invalid_argument, "invalid signal");
  const std::string id = request.text(Tag::exec_id);
  if (id.empty()) return container_.kill(static_cast<int>(signal), request.flag(Tag::all), reply);
  container_.execs().get(id).signal(static_cast<int>(signal));
  reply.ok();
}

void Server::attach(const Message& message, const Reply& reply) {
  protocol::AttachRequest request = protocol::read_attach(message);
  Stdio& io = container_.streams(request.exec_id);
  Connection& connection = *connections_.at(reply.connection());
  Message success = reply.success();
  success.put_flag(Tag::tty, io.options().tty);
  std::string first_output = std::move(connection.output) + success.encode();
  std::string first_input = connection.decoder.take_rest();
  connection.watch.reset();
  sys::Fd socket = std::move(connection.fd);
  close(reply.connection());
  io.attach(std::move(socket), std::move(request), std::move(first_output), std::move(first_input));
}

void Server::shutdown(const Reply& reply) {
  if (!container_.gone()) throw Error(Errc::conflict, "the container still exists");
  accept_again_.reset();
  watch_.reset();
  listener_.reset();
  ::unlink(socket_.c_str());
  // Before the answer: this process may take a while to go.
  release_ports_();
  reply.ok();
  stop_when_quiet(100);
}

/// Clients and the log driver that still take the last output get a while, and so does a log that is being compressed.
void Server::stop_when_quiet(int attempts) {
  if (attempts == 0 || (container_.attached() == 0 && !container_.log().busy())) return loop_.stop();
  stop_ = loop_.after(std::chrono::milliseconds(100), [this, attempts] { stop_when_quiet(attempts - 1); });
}

}  // namespace gantry::shim
