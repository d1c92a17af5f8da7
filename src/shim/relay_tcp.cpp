#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.hpp"
#include "shim/relay_state.hpp"

namespace gantry::shim {
namespace {

constexpr int kAcceptsPerRound = 16;
constexpr int kStepsPerRound = 32;
constexpr std::size_t kPipeSize = 64 << 10;
constexpr std::size_t kCopied = 16 << 10;  // a message that fills this is the first of much
constexpr std::size_t kLittle = 4 << 10;   // and a piece as small as this the last
constexpr std::uint32_t kReadEnds = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;

// One buffer for all: the shim has one thread.
char* buffer() {
  static char bytes[kCopied];
  return bytes;
}

void set(int fd, int level, int option) {
  const int one = 1;
  ::setsockopt(fd, level, option, &one, sizeof one);
}

// An urgent byte goes on as one of the stream's: nothing is said of it to the other side.
void prepare(int fd) {
  set(fd, IPPROTO_TCP, TCP_NODELAY);
  set(fd, SOL_SOCKET, SO_KEEPALIVE);
  set(fd, SOL_SOCKET, SO_OOBINLINE);
}

}  // namespace

// What is set on the listener holds for whatever it accepts.
Relay::State::Listener::Listener(State& owner, RelayPort port)
    : state(owner), socket(std::move(port.socket)), target(SocketAddress::parse(port.target_ip, port.target_port)) {
  prepare(socket.get());
}

void Relay::State::Listener::ready(std::uint32_t) {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    if (state.connections.size() >= kMaxConnections) return state.pause_accepting();
    sys::Fd client(::accept4(socket.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!client) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) state.pause_accepting();
      return;
    }
    Connection* key = nullptr;
    try {
      auto connection = std::make_unique<Connection>(state, std::move(client), target);
      key = connection.get();
      state.connections.emplace(key, std::move(connection));
      key->start(target);
    } catch (const Error&) {
      // No descriptors for this one: it is closed, the client sees that, and the others go on.
      state.drop(key);
      return state.pause_accepting();
    }
  }
}

Relay::State::Connection::Connection(State& owner, sys::Fd accepted, const SocketAddress& target)
    : state(owner), client(*this), server(*this) {
  client.socket = std::move(accepted);
  server.socket = sys::Fd(::socket(target.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!server.socket) throw Error::from_errno(errno, "creating a relay socket");
  prepare(server.socket.get());
  ways[0].from = ways[1].to = &client;
  ways[0].to = ways[1].from = &server;
}

void Relay::State::Connection::start(const SocketAddress& target) {
  // Whether it worked is known when the socket is writable.
  if (::connect(server.socket.get(), target.get(), target.length) != 0 && errno != EINPROGRESS) return reset();
  constexpr std::uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
  for (Side* side : {&server, &client}) state.watch(side->socket.get(), kEdges, side);
}

// The other side then sees the connection reset, as it would without a relay in between.
void Relay::State::Connection::reset() {
  const linger now{1, 0};
  for (Side* side : {&server, &client}) ::setsockopt(side->socket.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  state.drop(this);
}

// Sockets are watched for edges: what an event told holds until the kernel says "not now".
void Relay::State::Connection::Side::ready(std::uint32_t events) {
  for (Direction& way : connection.ways) {
    if (way.from == this && (events & (EPOLLIN | kReadEnds)) != 0) {
      way.readable = true;
      way.ending = way.ending || (events & kReadEnds) != 0;
    }
    if (way.to == this && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) way.writable = true;
  }
  connection.carry();
}

void Relay::State::Connection::carry() {
  if (!connected) {
    if (!ways[0].writable) return;
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(server.socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return reset();
    connected = true;
  }
  bool more = false;
  for (Direction& way : ways) {
    const Progress progress = pump(way);
    if (progress == Progress::broken) return reset();
    more = more || progress == Progress::more;
  }
  if (ways[0].closed && ways[1].closed) return state.drop(this);
  if (more) state.run_again(this);
}

// Each direction goes on until there is nothing to read or no room to write, or until its share of this round is used.
Relay::State::Connection::Progress Relay::State::Connection::pump(Direction& way) {
  for (int i = 0; i < kStepsPerRound; ++i) {
    const bool waits = !way.rest.empty() || way.piped > 0;
    if (way.closed || (waits && !way.writable) || (!waits && !way.ended && !way.readable)) return Progress::waiting;
    const bool went_on = waits ? deliver(way) : way.ended ? end(way) : take(way);
    if (!went_on) return Progress::broken;
  }
  return Progress::more;
}

bool Relay::State::Connection::end(Direction& way) {
  ::shutdown(way.to->socket.get(), SHUT_WR);
  return way.closed = true;
}

bool Relay::State::Connection::take(Direction& way) {
  const int from = way.from->socket.get();
  const ssize_t n = way.much ? ::splice(from, nullptr, way.pipe_in.get(), nullptr, kPipeSize, SPLICE_F_NONBLOCK)
                             : ::recv(from, buffer(), kCopied, 0);
  if (n < 0) {
    if (errno == EINTR) return true;
    // An urgent byte stops splice(2) for good, so what it says is not the last word.
    if (!std::exchange(way.much, false)) way.readable = false;
    return errno == EAGAIN;
  }
  const auto size = static_cast<std::size_t>(n);
  if (size == 0) way.ended = true;
  if (way.much) {
    way.piped = size;
    way.much = size > kLittle;
    return true;
  }
  // Less than was asked for is all there is, and more is told by another event; unless the stream ends here.
  if (size < kCopied && !way.ending) way.readable = false;
  if (size == kCopied) expect_much(way);
  return send(way, {buffer(), size});
}

bool Relay::State::Connection::deliver(Direction& way) {
  if (way.piped == 0) {
    const std::string rest = std::move(way.rest);
    return send(way, rest);
  }
  const ssize_t n = ::splice(way.pipe_out.get(), nullptr, way.to->socket.get(), nullptr, way.piped, SPLICE_F_NONBLOCK);
  if (n < 0) {
    if (errno == EAGAIN) way.writable = false;
    return errno == EAGAIN || errno == EINTR;
  }
  way.piped -= static_cast<std::size_t>(n);
  return true;
}

bool Relay::State::Connection::send(Direction& way, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(way.to->socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      way.writable = false;
      way.rest = bytes;
      return errno == EAGAIN;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

// Without descriptors for a pipe the bytes are copied on.
void Relay::State::Connection::expect_much(Direction& way) {
  int ends[2];
  if (!way.pipe_in && ::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0) {
    way.pipe_out = sys::Fd(ends[0]);
    way.pipe_in = sys::Fd(ends[1]);
  }
  way.much = static_cast<bool>(way.pipe_in);
}

}  // namespace gantry::shim
