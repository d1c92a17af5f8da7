#include "api/server.hpp"

#include <list>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>

#include "api/connection.hpp"
#include "api/listeners.hpp"
#include "async/readable.hpp"
#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "sys/file.hpp"

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace gantry::api {
namespace {

/// Deadlines are kept to within this.
constexpr auto kSweepInterval = 50ms;

Peer peer_of(int fd, int family) {
  Peer out;
  if (family == AF_UNIX) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
      out.pid = credentials.pid;
      out.uid = static_cast<int>(credentials.uid);
      out.gid = static_cast<int>(credentials.gid);
    }
    out.address = "@";
    return out;
  }
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char text[INET6_ADDRSTRLEN] = "?";
  std::uint16_t port = 0;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    if (address.ss_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
      ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
      port = ntohs(v4->sin_port);
    } else {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
      ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
      port = ntohs(v6->sin6_port);
    }
  }
  out.address = std::string(text) + ":" + std::to_string(port);
  return out;
}

void tune_tcp(int fd) {
  const int on = 1;
  const int idle_seconds = 30;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  (void)::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
}

std::string daemon_headers(const ServerOptions& options, bool with_experimental) {
  std::string out = "Api-Version: " + render_api_version(kMaxApiVersion) + "\r\n";
  if (with_experimental)
    out += std::string("Docker-Experimental: ") + (options.experimental ? "true" : "false") + "\r\n";
  return out + "Ostype: linux\r\nServer: Docker/" + options.engine_version + " (linux)\r\n";
}

}  // namespace

struct Server::State {
  State(asio::any_io_executor executor, const Router& router, ServerOptions options)
      : loop(std::move(executor)),
        context(std::make_shared<ServerContext>(ServerContext{.router = router,
                                                              .options = std::move(options),
                                                              .daemon_headers = {},
                                                              .daemon_headers_without_experimental = {},
                                                              .deadline_set = {}})),
        sweep_timer(loop),
        acceptors(std::make_unique<async::TaskGroup>(loop)) {
    context->daemon_headers = daemon_headers(context->options, true);
    context->daemon_headers_without_experimental = daemon_headers(context->options, false);
  }

  asio::any_io_executor loop;
  std::shared_ptr<ServerContext> context;
  std::vector<Listener> listeners;
  std::shared_ptr<TlsContext> tls;
  std::list<Connection> connections;
  async::Signal connection_ended;
  asio::steady_timer sweep_timer;
  Wire::Clock::time_point next_sweep = Wire::Clock::time_point::max();
  sys::Fd spare;  // given up for a moment when the process has no descriptor left
  Wire::Clock::time_point last_shed_report{};
  std::unique_ptr<async::TaskGroup> acceptors;

  static void start_connection(const std::shared_ptr<State>& self, sys::Fd fd, const Listener& listener);
  static Task<void> accept_from(std::shared_ptr<State> self, std::size_t index);
  static bool accept_one(const std::shared_ptr<State>& self, const Listener& listener);
  static void arm_sweep(const std::shared_ptr<State>& self, Wire::Clock::time_point when);
  static void sweep(const std::shared_ptr<State>& self);
  bool shed_connection(int listening_fd);
};

/// At the descriptor limit accept(2) fails and the connection stays in the queue, which would keep the loop spinning.
/// With the spare descriptor it can be taken and closed, so that the client learns of it.
/// False if there was none.
bool Server::State::shed_connection(int listening_fd) {
  spare.reset();
  const bool shed = static_cast<bool>(sys::Fd(::accept4(listening_fd, nullptr, nullptr, SOCK_CLOEXEC)));
  spare = sys::Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (shed && Wire::Clock::now() - last_shed_report > 1s) {
    last_shed_report = Wire::Clock::now();
    log::warning("no file descriptor left for client connections: some are refused");
  }
  return shed;
}

/// False when nothing is left to accept for now.
bool Server::State::accept_one(const std::shared_ptr<State>& self, const Listener& listener) {
  sys::Fd fd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd) {
    start_connection(self, std::move(fd), listener);
    return true;
  }
  switch (errno) {
    case EAGAIN: return false;
    case EMFILE:
    case ENFILE: return self->shed_connection(listener.fd());
    case ENOBUFS:
    case ENOMEM: return false;
    default: return true;  // this connection broke; the next may not (accept(2))
  }
}

Task<void> Server::State::accept_from(std::shared_ptr<State> self, std::size_t index) {
  const Listener& listener = self->listeners[index];
  async::Readable readable(self->loop, listener.duplicate());
  for (;;) {
    co_await readable.wait();
    // A burst of connections must not keep others waiting.
    int burst = 0;
    while (burst < 64 && accept_one(self, listener)) ++burst;
    if (burst == 0) co_await async::sleep_for(10ms);  // spurious, or short of memory
  }
}

void Server::State::start_connection(const std::shared_ptr<State>& self, sys::Fd fd, const Listener& listener) {
  ServerContext& context = *self->context;
  if (self->connections.size() >= context.options.max_connections) {
    static constexpr std::string_view kBusy =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        "{\"message\":\"too many connections\"}\n";
    (void)::send(fd.get(), kBusy.data(), kBusy.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  Peer peer = peer_of(fd.get(), listener.family());
  if (listener.family() != AF_UNIX) tune_tcp(fd.get());
  auto transport = listener.uses_tls() ? make_tls_transport(self->loop, std::move(fd), listener.family(), self->tls)
                                       : make_plain_transport(self->loop, std::move(fd), listener.family());
  const auto place =
      self->connections.emplace(self->connections.end(), self->context, std::move(transport), std::move(peer));
  auto ended = [self, place](std::exception_ptr /*serve() never throws*/) {
    self->connections.erase(place);
    self->connection_ended.notify();
  };
  asio::co_spawn(self->loop, place->serve(), asio::bind_cancellation_slot(place->slot(), std::move(ended)));
}

void Server::State::arm_sweep(const std::shared_ptr<State>& self, Wire::Clock::time_point when) {
  if (when >= self->next_sweep) return;
  self->next_sweep = when;
  self->sweep_timer.expires_at(when);
  self->sweep_timer.async_wait([weak = std::weak_ptr(self)](boost::system::error_code ec) {
    const auto state = weak.lock();
    if (state && !ec) sweep(state);
  });
}

void Server::State::sweep(const std::shared_ptr<State>& self) {
  const auto now = Wire::Clock::now();
  auto earliest = Wire::Clock::time_point::max();
  for (Connection& connection : self->connections) {
    if (connection.wire().deadline <= now) connection.wire().close();
    else earliest = std::min(earliest, connection.wire().deadline);
  }
  self->next_sweep = Wire::Clock::time_point::max();
  if (earliest != Wire::Clock::time_point::max()) arm_sweep(self, std::max(earliest, now + kSweepInterval));
}

Server::Server(asio::any_io_executor loop, const Router& router, ServerOptions options)
    : state_(std::make_shared<State>(std::move(loop), router, std::move(options))) {
  state_->context->deadline_set = [weak = std::weak_ptr(state_)](Wire::Clock::time_point when) {
    if (const auto state = weak.lock()) State::arm_sweep(state, when);
  };
}

Server::~Server() {
  state_->acceptors->cancel();
  for (Connection& connection : state_->connections) connection.wire().close();
  for (Listener& listener : state_->listeners) listener.close();
}

void Server::start() {
  const ServerOptions& options = state_->context->options;
  if (options.tls)
    state_->tls = load_tls_context(options.tls_files.certificate, options.tls_files.key, options.tls_files.ca,
                                   options.tls_files.verify_client);
  state_->spare = sys::open_file("/dev/null", O_RDONLY);
  state_->listeners = open_listeners(options);
  for (std::size_t i = 0; i < state_->listeners.size(); ++i)
    state_->acceptors->spawn("accept " + state_->listeners[i].name(), State::accept_from(state_, i));
}

namespace {

/// Waits until no connection is left; false if `limit` passed first.
Task<bool> wait_until_empty(const std::list<Connection>* connections, async::Signal* ended,
                            std::chrono::milliseconds limit) {
  const auto until = Wire::Clock::now() + limit;
  while (!connections->empty()) {
    const auto left = until - Wire::Clock::now();
    if (left <= 0ms || !co_await ended->wait_for(left)) co_return connections->empty();
  }
  co_return true;
}

}  // namespace

Task<void> Server::stop(std::chrono::milliseconds grace) {
  auto state = state_;
  struct StopSweeping {
    asio::steady_timer& timer;
    ~StopSweeping() { timer.cancel(); }
  } stop_sweeping{state->sweep_timer};
  state->context->stopping = true;
  state->acceptors->cancel();
  co_await state->acceptors->join();
  for (Listener& listener : state->listeners) listener.close();
  for (Connection& connection : state->connections)
    if (!connection.is_busy() || connection.is_streaming()) connection.cancel();
  if (co_await wait_until_empty(&state->connections, &state->connection_ended, grace)) co_return;
  for (Connection& connection : state->connections) connection.cancel();
  if (co_await wait_until_empty(&state->connections, &state->connection_ended, grace)) co_return;
  for (Connection& connection : state->connections) connection.wire().close();
}

std::uint16_t Server::port(std::size_t index) const {
  return index < state_->listeners.size() ? state_->listeners[index].port() : 0;
}
std::size_t Server::connections() const noexcept { return state_->connections.size(); }
std::uint64_t Server::requests() const noexcept { return state_->context->requests; }

}  // namespace gantry::api
