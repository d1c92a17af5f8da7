#include <cerrno>
#include <cstring>

#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.hpp"
#include "shim/relay_state.hpp"

namespace gantry::shim {
namespace {

constexpr int kDatagramsPerRound = 64;
constexpr std::size_t kLargestDatagram = 65535;

// One buffer for all: the shim has one thread.
char* buffer() {
  static char bytes[kLargestDatagram];
  return bytes;
}

// The control message that makes an answer come from the address the client wrote to.
std::string answer_control(msghdr& message) {
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    const bool v4 = head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_PKTINFO;
    const bool v6 = head->cmsg_level == IPPROTO_IPV6 && head->cmsg_type == IPV6_PKTINFO;
    if (!v4 && !v6) continue;
    std::string out(CMSG_SPACE(v4 ? sizeof(in_pktinfo) : sizeof(in6_pktinfo)), '\0');
    auto* copy = reinterpret_cast<cmsghdr*>(out.data());
    *copy = {CMSG_LEN(v4 ? sizeof(in_pktinfo) : sizeof(in6_pktinfo)), head->cmsg_level, head->cmsg_type};
    if (v4) {
      in_pktinfo info;
      std::memcpy(&info, CMSG_DATA(head), sizeof info);
      info.ipi_spec_dst = info.ipi_addr;
      info.ipi_ifindex = 0;
      std::memcpy(CMSG_DATA(copy), &info, sizeof info);
    } else {
      in6_pktinfo info;
      std::memcpy(&info, CMSG_DATA(head), sizeof info);
      if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) info.ipi6_ifindex = 0;
      std::memcpy(CMSG_DATA(copy), &info, sizeof info);
    }
    return out;
  }
  return {};
}

}  // namespace

Relay::State::UdpPort::UdpPort(State& owner, RelayPort port)
    : state(owner), socket(std::move(port.socket)), target(SocketAddress::parse(port.target_ip, port.target_port)) {
  const int one = 1;
  int family = AF_INET;
  socklen_t length = sizeof family;
  ::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &family, &length);
  if (family == AF_INET6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
  else ::setsockopt(socket.get(), IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
}

void Relay::State::UdpPort::ready(std::uint32_t) {
  for (int i = 0; i < kDatagramsPerRound; ++i) {
    SocketAddress from;
    alignas(cmsghdr) char control[256];
    iovec data{buffer(), kLargestDatagram};
    msghdr message{};
    message.msg_name = from.get();
    message.msg_namelen = sizeof from.storage;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t size = ::recvmsg(socket.get(), &message, MSG_DONTWAIT);
    if (size < 0) {
      if (errno == ECONNREFUSED) continue;  // an earlier answer did not arrive; says nothing about this client
      return;
    }
    from.length = message.msg_namelen;
    std::string answer = answer_control(message);
    std::string key = from.key() + answer;
    auto it = clients.find(key);
    if (it == clients.end()) {
      if (state.udp_clients.size() >= kMaxUdpClients) state.drop(state.udp_clients.front().get());
      try {
        auto client = std::make_unique<UdpClient>(state, *this, key, from, std::move(answer));
        state.watch(client->server.get(), EPOLLIN, client.get());
        UdpClient* raw = client.get();
        raw->place = state.udp_clients.insert(state.udp_clients.end(), std::move(client));
        it = clients.emplace(std::move(key), raw).first;
        if (!state.clock->armed) state.clock->arm(std::chrono::seconds(10));
      } catch (const Error&) {
        continue;  // no descriptors: datagrams may be lost
      }
    }
    it->second->touch();
    [[maybe_unused]] const ssize_t sent =
        ::send(it->second->server.get(), buffer(), static_cast<std::size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

Relay::State::UdpClient::UdpClient(State& owner, UdpPort& origin, std::string id, const SocketAddress& from,
                                   std::string answer)
    : state(owner), port(origin), key(std::move(id)), address(from), control(std::move(answer)) {
  server = sys::Fd(::socket(port.target.storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!server || ::connect(server.get(), port.target.get(), port.target.length) != 0)
    throw Error::from_errno(errno, "creating a relay socket");
}

void Relay::State::UdpClient::touch() {
  last = std::chrono::steady_clock::now();
  state.udp_clients.splice(state.udp_clients.end(), state.udp_clients, place);
}

void Relay::State::UdpClient::ready(std::uint32_t) {
  for (int i = 0; i < kDatagramsPerRound; ++i) {
    const ssize_t size = ::recv(server.get(), buffer(), kLargestDatagram, MSG_DONTWAIT);
    if (size < 0) {
      if (errno == ECONNREFUSED) continue;  // nothing listens in the container yet
      return;
    }
    touch();
    iovec data{buffer(), static_cast<std::size_t>(size)};
    msghdr message{};
    message.msg_name = address.get();
    message.msg_namelen = address.length;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.empty() ? nullptr : control.data();
    message.msg_controllen = control.size();
    [[maybe_unused]] const ssize_t sent = ::sendmsg(port.socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

}  // namespace gantry::shim
