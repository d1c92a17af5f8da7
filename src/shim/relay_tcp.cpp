#include <cerrno>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.hpp"
#include "shim/relay_state.hpp"

namespace gantry::shim {
namespace {

constexpr int kAcceptsPerRound = 16;
constexpr int kSplicesPerRound = 16;
constexpr std::size_t kPipeSize = 64 << 10;

void make_pipe(sys::Fd& in, sys::Fd& out) {
  int ends[2];
  if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) throw Error::from_errno(errno, "creating a relay pipe");
  out = sys::Fd(ends[0]);
  in = sys::Fd(ends[1]);
}

// The other side then sees the connection reset, as it would without a relay in between.
void reset_on_close(int fd) {
  const linger now{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace

Relay::State::Listener::Listener(State& owner, RelayPort port)
    : state(owner), socket(std::move(port.socket)), target(SocketAddress::parse(port.target_ip, port.target_port)) {}

void Relay::State::Listener::ready() {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    if (state.connections.size() >= kMaxConnections) return state.pause_accepting();
    sys::Fd client(::accept4(socket.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!client) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) state.pause_accepting();
      return;
    }
    const int raw = client.get();
    Connection* key = nullptr;
    try {
      auto connection = std::make_unique<Connection>(state, std::move(client), target);
      key = connection.get();
      state.connections.emplace(key, std::move(connection));
      constexpr std::uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
      state.watch(key->server.get(), kEdges, key);
      state.watch(raw, kEdges, key);
    } catch (const Error&) {
      // No descriptors for this one: it is closed, the client sees that, and the others go on.
      state.drop(key);
      return state.pause_accepting();
    }
  }
}

Relay::State::Connection::Connection(State& owner, sys::Fd accepted, const SocketAddress& target)
    : state(owner), client(std::move(accepted)) {
  server = sys::Fd(::socket(target.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!server) throw Error::from_errno(errno, "creating a relay socket");
  for (int fd : {client.get(), server.get()}) {
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  }
  ways[0].from = ways[1].to = client.get();
  ways[0].to = ways[1].from = server.get();
  for (Direction& way : ways) make_pipe(way.pipe_in, way.pipe_out);
  // Whether it worked is known when the socket is writable; an immediate failure shows there too.
  ::connect(server.get(), target.get(), target.length);
}

void Relay::State::Connection::ready() { carry(); }

void Relay::State::Connection::carry() {
  if (!connected) {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(server.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      reset_on_close(client.get());
      return state.drop(this);
    }
    sockaddr_storage peer;
    length = sizeof peer;
    if (::getpeername(server.get(), reinterpret_cast<sockaddr*>(&peer), &length) != 0) return;  // still connecting
    connected = true;
  }
  bool more = false;
  for (Direction& way : ways) {
    switch (pump(way)) {
      case Progress::idle: break;
      case Progress::more: more = true; break;
      case Progress::broken:
        reset_on_close(client.get());
        reset_on_close(server.get());
        return state.drop(this);
    }
  }
  if (ways[0].closed && ways[1].closed) return state.drop(this);
  if (more) state.run_again(this);
}

// Both sockets are watched for edges, so each direction goes on until the kernel says "not now", or until its share of
// this round is used up.
Relay::State::Connection::Progress Relay::State::Connection::pump(Direction& way) {
  if (way.closed) return Progress::idle;
  for (int i = 0; i < kSplicesPerRound; ++i) {
    if (way.buffered > 0) {
      const ssize_t n =
          ::splice(way.pipe_out.get(), nullptr, way.to, nullptr, way.buffered, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
      if (n < 0) return errno == EAGAIN ? Progress::idle : Progress::broken;
      way.buffered -= static_cast<std::size_t>(n);
      continue;
    }
    if (way.ended) {
      ::shutdown(way.to, SHUT_WR);
      way.closed = true;
      return Progress::idle;
    }
    const ssize_t n =
        ::splice(way.from, nullptr, way.pipe_in.get(), nullptr, kPipeSize, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0) return errno == EAGAIN ? Progress::idle : Progress::broken;
    if (n == 0) way.ended = true;
    way.buffered += static_cast<std::size_t>(n);
  }
  return Progress::more;
}

}  // namespace gantry::shim
