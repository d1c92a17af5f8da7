#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "buildlink/link.hpp"
#include "json/codec.hpp"

namespace gantry::buildlink {
namespace {

/// One message and the descriptor that came with it. An empty text: nothing is there.
std::pair<std::string, sys::Fd> receive_message(int socket) {
  std::string text(protocol::kMaxHandover, '\0');
  iovec data{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
  if (got < 0) throw Error::from_errno(errno, "receive a connection");
  if (got == 0) throw Error(Errc::unavailable, "the daemon is gone");
  text.resize(static_cast<std::size_t>(got));
  sys::Fd fd;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int raw = -1;
    std::memcpy(&raw, CMSG_DATA(header), sizeof raw);
    fd = sys::Fd(raw);
  }
  return {std::move(text), std::move(fd)};
}

void make_blocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) throw Error::from_errno(errno, "fcntl");
}

}  // namespace

std::string Incoming::header(std::string_view name) const {
  for (const protocol::LinkHeader& header : request.Headers)
    if (equals_ignoring_case(header.Name, name)) return header.Value;
  return {};
}

std::vector<std::string> Incoming::headers(std::string_view name) const {
  std::vector<std::string> out;
  for (const protocol::LinkHeader& header : request.Headers)
    if (equals_ignoring_case(header.Name, name)) out.push_back(header.Value);
  return out;
}

std::optional<Incoming> Connections::receive(std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    auto [text, fd] = receive_message(socket_.get());
    if (fd) {
      make_blocking(fd.get());
      return Incoming{json::decode<protocol::Handover>(json::parse(text)), std::move(fd)};
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return std::nullopt;
    pollfd entry{socket_.get(), POLLIN, 0};
    (void)::poll(&entry, 1, static_cast<int>(left.count()));
  }
}

}  // namespace gantry::buildlink
