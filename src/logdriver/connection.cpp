#include "logdriver/connection.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::logdriver {
namespace {

constexpr const char* kLocalSockets[] = {"/dev/log", "/var/run/syslog", "/var/run/log"};
constexpr std::size_t kMaxReceived = 64 << 10;

/// As Go writes errors of system calls.
std::string reason(int err) {
  std::string text = std::strerror(err);
  if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z') text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return text;
}

std::string host_and_port(const sockaddr* address, socklen_t length) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (::getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "?";
  const std::string text = host;
  return (text.find(':') == std::string::npos ? text : "[" + text + "]") + ":" + port;
}

}  // namespace

Connection::Connection(Target target) : target_(std::move(target)) {
  if (target_.tls) tls_ = std::make_unique<Tls>(*target_.tls);
  type_ = target_.address.scheme == "udp" || target_.address.scheme == "unixgram" ? SOCK_DGRAM : SOCK_STREAM;
}

void Connection::add_unix(const std::string& path, int type) {
  Candidate candidate;
  auto* const address = reinterpret_cast<sockaddr_un*>(&candidate.address);
  if (path.size() >= sizeof address->sun_path) {
    failure_ = "dial unix " + path + ": connect: invalid argument";
    return;
  }
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path, path.c_str(), path.size() + 1);
  candidate.length = sizeof(sockaddr_un);
  candidate.type = type;
  candidate.text = (type == SOCK_DGRAM ? "unixgram " : "unix ") + path;
  candidates_.push_back(std::move(candidate));
}

void Connection::resolve() {
  candidates_.clear();
  failure_.clear();
  if (target_.local_syslog) {
    for (const int type : {SOCK_DGRAM, SOCK_STREAM})
      for (const char* path : kLocalSockets) add_unix(path, type);
    return;
  }
  const logs::Address& to = target_.address;
  if (!to.path.empty()) return add_unix(to.path, type_);
  addrinfo hints{};
  hints.ai_socktype = type_;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const std::string network = type_ == SOCK_DGRAM ? "udp" : "tcp";
  const int error = ::getaddrinfo(to.host.empty() ? "127.0.0.1" : to.host.c_str(), to.port.c_str(), &hints, &found);
  if (error != 0) {
    failure_ =
        "dial " + network + ": lookup " + to.host +
        (error == EAI_NONAME || error == EAI_NODATA ? ": no such host" : std::string(": ") + ::gai_strerror(error));
    return;
  }
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    Candidate candidate;
    candidate.family = info->ai_family;
    candidate.type = type_;
    std::memcpy(&candidate.address, info->ai_addr, info->ai_addrlen);
    candidate.length = info->ai_addrlen;
    candidate.text = network + " " + host_and_port(info->ai_addr, info->ai_addrlen);
    candidates_.push_back(std::move(candidate));
  }
  ::freeaddrinfo(found);
}

void Connection::open() {
  close();
  resolve();
  try_next();
}

void Connection::close() noexcept {
  if (tls_) tls_->end();
  socket_.reset();
  state_ = State::closed;
  shaking_hands_ = false;
  received_.clear();
}

/// Connects to the first of the addresses that are left and that takes it.
void Connection::try_next() {
  while (!candidates_.empty()) {
    const Candidate candidate = std::move(candidates_.front());
    candidates_.erase(candidates_.begin());
    current_ = candidate.text;
    type_ = candidate.type;
    socket_ = sys::Fd(::socket(candidate.family, candidate.type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket_) {
      failure_ = "dial " + current_ + ": socket: " + reason(errno);
      continue;
    }
    if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&candidate.address), candidate.length) == 0)
      return connected();
    if (errno == EINPROGRESS) {
      state_ = State::connecting;
      return;
    }
    failure_ = "dial " + current_ + ": connect: " + reason(errno == EAGAIN ? ECONNREFUSED : errno);
  }
  close();
  if (target_.local_syslog) failure_ = "Unix syslog delivery error";
  throw Error(Errc::unavailable, failure_.empty() ? "dial: no address" : failure_);
}

void Connection::connected() {
  const int on = 1;
  if (type_ == SOCK_STREAM && target_.address.path.empty())
    (void)::setsockopt(socket_.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  if (!tls_) {
    state_ = State::open;
    return;
  }
  state_ = State::connecting;
  shaking_hands_ = true;
  tls_->begin(socket_.get(), target_.address.host);
}

short Connection::wanted(bool more) const noexcept {
  if (state_ == State::connecting) return shaking_hands_ ? tls_->wanted() : short{POLLOUT};
  if (state_ == State::closed) return 0;
  return static_cast<short>(POLLIN | (!more ? 0 : tls_ ? tls_->wanted() | POLLOUT : POLLOUT));
}

void Connection::on_ready(short events) {
  if (state_ == State::connecting && !shaking_hands_) {
    int error = 0;
    socklen_t size = sizeof error;
    (void)::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) return connected();
    failure_ = "dial " + current_ + ": connect: " + reason(error);
    return try_next();
  }
  if (state_ == State::connecting) {
    if (!tls_->handshake()) return;
    shaking_hands_ = false;
    state_ = State::open;
    return;
  }
  if (state_ != State::open || (events & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  if (tls_) return tls_->receive(received_);
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, 0);
    if (got > 0) received_.append(buffer, static_cast<std::size_t>(got));
    if (received_.size() > kMaxReceived) received_.clear();
    if (got > 0) continue;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    // The port of a datagram's receiver is closed at the moment; that is no reason to give up on it.
    if (!is_stream() && got < 0 && errno == ECONNREFUSED) return;
    if (!is_stream() && got == 0) return;
    throw Error(Errc::unavailable, "read " + current_ + ": " + (got == 0 ? "EOF" : reason(errno)));
  }
}

std::size_t Connection::send(std::string_view bytes) {
  if (tls_) return tls_->send(bytes);
  if (!is_stream()) return send_datagram(bytes);
  for (;;) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return 0;
    throw Error(Errc::unavailable, "write " + current_ + ": " + reason(errno));
  }
}

std::size_t Connection::send_datagram(std::string_view bytes) {
  for (;;) {
    if (::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0) return bytes.size();
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return 0;
    const bool local = !target_.address.path.empty() || target_.local_syslog;
    if ((errno == EMSGSIZE || errno == ENOBUFS) && local && send_as_file(bytes)) return bytes.size();
    if (errno == EMSGSIZE || errno == ENOBUFS || (errno == ECONNREFUSED && !local)) return bytes.size();
    throw Error(Errc::unavailable, "write " + current_ + ": " + reason(errno));
  }
}

/// The journal takes what is too large for a datagram as a sealed file. Others drop it.
bool Connection::send_as_file(std::string_view bytes) {
  const sys::Fd file(::memfd_create("gantry-log", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file || ::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) return false;
  if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) return false;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = file.get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) >= 0;
}

}  // namespace gantry::logdriver
