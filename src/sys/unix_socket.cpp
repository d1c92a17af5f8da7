#include "sys/unix_socket.hpp"

#include <cerrno>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::sys {
namespace {

constexpr std::size_t kMaxReceived = 16;

sockaddr_un address_of(const SocketPath& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.str().c_str(), path.str().size() + 1);
  return address;
}

Fd make_socket() {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw Error::from_errno(errno, "socket");
  return fd;
}

}  // namespace

SocketPath::SocketPath(const Path& path) : text_(path.string()) {
  if (text_.size() < sizeof(sockaddr_un::sun_path)) return;
  directory_ = open_file(path.parent_path(), O_PATH | O_DIRECTORY);
  text_ = "/proc/self/fd/" + std::to_string(directory_.get()) + "/" + path.filename().string();
  if (text_.size() >= sizeof(sockaddr_un::sun_path))
    throw Error(Errc::invalid_argument, "socket name is too long: " + path.string());
}

Fd listen_unix(const Path& path, int backlog) {
  const SocketPath name(path);
  const sockaddr_un address = address_of(name);
  Fd fd = make_socket();
  ::unlink(name.str().c_str());
  // The mode is set before anybody can connect: until listen(2) connections are refused.
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw Error::from_errno(errno, "bind " + path.string());
  if (::chmod(name.str().c_str(), 0600) != 0) throw Error::from_errno(errno, "chmod " + path.string());
  if (::listen(fd.get(), backlog) != 0) throw Error::from_errno(errno, "listen " + path.string());
  return fd;
}

std::optional<Fd> accept_unix(int listener) {
  Fd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd) return fd;
  const int err = errno;
  if (err == EAGAIN || err == EINTR || err == ECONNABORTED) return std::nullopt;
  throw Error::from_errno(err, "accept");
}

Fd connect_unix(const Path& path) {
  const SocketPath name(path);
  const sockaddr_un address = address_of(name);
  Fd fd = make_socket();
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int err = errno;
  if (err == ECONNREFUSED) throw Error(Errc::unavailable, "nobody listens at " + path.string());
  if (err == EAGAIN) throw Error(Errc::unavailable, "too many connections wait at " + path.string());
  throw Error::from_errno(err, "connect to " + path.string());
}

void send_fds(int socket, std::span<const int> fds) {
  char byte = 0;
  iovec data{&byte, 1};
  std::vector<char> control(CMSG_SPACE(fds.size_bytes()));
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  ssize_t sent = 0;
  do sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) throw Error::from_errno(errno, "send descriptors");
}

Fd receive_fd(int socket) {
  char bytes[4096];
  iovec data{bytes, sizeof bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxReceived * sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) {
    const int err = errno;
    if (err == EAGAIN) throw Error(Errc::unavailable, "no descriptor yet");
    throw Error::from_errno(err, "receive descriptor");
  }
  Fd first;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(header) + i * sizeof(int), sizeof raw);
      Fd received(raw);
      if (!first) first = std::move(received);
    }
  }
  return first;
}

}  // namespace gantry::sys
