#include "shim/relay.hpp"

#include <atomic>
#include <cstring>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::shim {
namespace {

sys::Fd bound(const char* ip, int type, std::uint16_t& port) {
  const bool v6 = std::strchr(ip, ':') != nullptr;
  sys::Fd fd(::socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in6 v6_address{};
  sockaddr_in v4_address{};
  v6_address.sin6_family = AF_INET6;
  v4_address.sin_family = AF_INET;
  ::inet_pton(AF_INET6, ip, &v6_address.sin6_addr);
  ::inet_pton(AF_INET, ip, &v4_address.sin_addr);
  auto* address = v6 ? reinterpret_cast<sockaddr*>(&v6_address) : reinterpret_cast<sockaddr*>(&v4_address);
  socklen_t length = v6 ? sizeof v6_address : sizeof v4_address;
  EXPECT_EQ(::bind(fd.get(), address, length), 0);
  if (type == SOCK_STREAM) EXPECT_EQ(::listen(fd.get(), 512), 0);
  ::getsockname(fd.get(), address, &length);
  port = ntohs(v6 ? v6_address.sin6_port : v4_address.sin_port);
  return fd;
}

sys::Fd connected(const char* ip, std::uint16_t port, int type) {
  const bool v6 = std::strchr(ip, ':') != nullptr;
  sys::Fd fd(::socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in6 v6_address{};
  sockaddr_in v4_address{};
  v6_address.sin6_family = AF_INET6;
  v4_address.sin_family = AF_INET;
  v6_address.sin6_port = v4_address.sin_port = htons(port);
  ::inet_pton(AF_INET6, ip, &v6_address.sin6_addr);
  ::inet_pton(AF_INET, ip, &v4_address.sin_addr);
  const timeval limit{5, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  EXPECT_EQ(
      ::connect(fd.get(), v6 ? reinterpret_cast<sockaddr*>(&v6_address) : reinterpret_cast<sockaddr*>(&v4_address),
                v6 ? sizeof v6_address : sizeof v4_address),
      0);
  return fd;
}

std::string read_to_end(int fd) {
  std::string out;
  char buffer[65536];
  for (ssize_t n; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) out.append(buffer, static_cast<std::size_t>(n));
  return out;
}

/// A relay in a loop of its own, as the shim has it.
class Running {
 public:
  explicit Running(std::vector<RelayPort> ports) : relay(std::move(ports)), thread_([this] { loop(); }) {}
  ~Running() {
    stop_ = true;
    thread_.join();
  }
  Relay relay;                              // the loop's, once it runs
  std::atomic<std::size_t> connections{0};  // as the loop last saw them
  std::atomic<std::size_t> udp_clients{0};

 private:
  void loop() {
    while (!stop_) {
      pollfd wait{relay.fd(), POLLIN, 0};
      if (::poll(&wait, 1, 10) > 0) relay.on_ready();
      connections = relay.connections();
      udp_clients = relay.udp_clients();
    }
  }
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

RelayPort port(const char* proto, sys::Fd socket, std::uint16_t target, bool serve = true) {
  RelayPort out;
  out.proto = proto;
  out.target_ip = "127.0.0.1";
  out.target_port = target;
  out.serve = serve;
  out.socket = std::move(socket);
  return out;
}

std::vector<RelayPort> one(RelayPort port) {
  std::vector<RelayPort> out;
  out.push_back(std::move(port));
  return out;
}

TEST(Relay, CarriesManyBytesBothWaysAndEachEndOfStream) {
  std::uint16_t target = 0, published = 0;
  sys::Fd server = bound("127.0.0.1", SOCK_STREAM, target);
  sys::Fd listener = bound("::1", SOCK_STREAM, published);
  Running relay(one(port("tcp", std::move(listener), target)));
  const std::string upload(8 << 20, 'u');
  const std::string download(5 << 20, 'd');
  std::string received;
  std::thread serving([&] {
    pollfd wait{server.get(), POLLIN, 0};
    ::poll(&wait, 1, 5000);
    sys::Fd peer(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    received = read_to_end(peer.get());  // ends with the client's half-close
    std::size_t sent = 0;
    while (sent < download.size()) {
      const ssize_t n = ::send(peer.get(), download.data() + sent, download.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
  });
  sys::Fd client = connected("::1", published, SOCK_STREAM);
  std::size_t sent = 0;
  while (sent < upload.size()) {
    const ssize_t n = ::send(client.get(), upload.data() + sent, upload.size() - sent, MSG_NOSIGNAL);
    ASSERT_GT(n, 0);
    sent += static_cast<std::size_t>(n);
  }
  ::shutdown(client.get(), SHUT_WR);
  EXPECT_EQ(read_to_end(client.get()) == download, true);
  serving.join();
  EXPECT_EQ(received == upload, true);
}

TEST(Relay, ClosedTargetResetsTheClient) {
  std::uint16_t target = 0, published = 0;
  {
    sys::Fd gone = bound("127.0.0.1", SOCK_STREAM, target);
  }
  sys::Fd listener = bound("127.0.0.1", SOCK_STREAM, published);
  Running relay(one(port("tcp", std::move(listener), target)));
  sys::Fd client = connected("127.0.0.1", published, SOCK_STREAM);
  char byte;
  EXPECT_EQ(::recv(client.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

/// Sends back whatever comes, in pieces as they come, until the client ends.
std::thread echo(int listener) {
  return std::thread([listener] {
    pollfd wait{listener, POLLIN, 0};
    ::poll(&wait, 1, 5000);
    sys::Fd peer(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    const int one = 1;
    ::setsockopt(peer.get(), SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
    char data[65536];
    for (ssize_t n; (n = ::recv(peer.get(), data, sizeof data, 0)) > 0;)
      for (ssize_t sent = 0; sent < n;) {
        const ssize_t part = ::send(peer.get(), data + sent, static_cast<std::size_t>(n - sent), MSG_NOSIGNAL);
        if (part < 0) return;
        sent += part;
      }
  });
}

std::string exchange(int fd, const std::string& message, int flags = 0) {
  std::thread sending([&] {
    for (std::size_t sent = 0; sent < message.size();) {
      const ssize_t n = ::send(fd, message.data() + sent, message.size() - sent, MSG_NOSIGNAL | flags);
      if (n < 0) return;
      sent += static_cast<std::size_t>(n);
    }
  });
  std::string out(message.size(), '\0');
  const ssize_t n = ::recv(fd, out.data(), out.size(), MSG_WAITALL);
  sending.join();
  out.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return out;
}

TEST(Relay, CarriesMessagesOfAllSizesInTurn) {
  std::uint16_t target = 0, published = 0;
  sys::Fd server = bound("127.0.0.1", SOCK_STREAM, target);
  sys::Fd listener = bound("127.0.0.1", SOCK_STREAM, published);
  Running relay(one(port("tcp", std::move(listener), target)));
  std::thread serving = echo(server.get());
  sys::Fd client = connected("127.0.0.1", published, SOCK_STREAM);
  for (const std::size_t size : {1u, 100u, 16383u, 16384u, 16385u, 5u, 32768u, 1u << 20, 7u, 4096u, 3u << 20, 1u}) {
    std::string message(size, 'a');
    for (std::size_t i = 0; i < size; ++i) message[i] = static_cast<char>('a' + (i * 7 + size) % 23);
    EXPECT_EQ(exchange(client.get(), message) == message, true) << size;
  }
  client.reset();
  serving.join();
}

TEST(Relay, AnUrgentByteStopsNothing) {
  std::uint16_t target = 0, published = 0;
  sys::Fd server = bound("127.0.0.1", SOCK_STREAM, target);
  sys::Fd listener = bound("127.0.0.1", SOCK_STREAM, published);
  Running relay(one(port("tcp", std::move(listener), target)));
  std::thread serving = echo(server.get());
  sys::Fd client = connected("127.0.0.1", published, SOCK_STREAM);
  const std::string much(1 << 20, 'm');
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(exchange(client.get(), "abc", MSG_OOB), "abc");
    EXPECT_EQ(exchange(client.get(), much) == much, true);
    EXPECT_EQ(exchange(client.get(), much, MSG_OOB) == much, true);
    EXPECT_EQ(exchange(client.get(), "def"), "def");
  }
  client.reset();
  serving.join();
}

TEST(Relay, ATargetWithoutARouteResetsTheClient) {
  std::uint16_t published = 0;
  sys::Fd listener = bound("127.0.0.1", SOCK_STREAM, published);
  RelayPort unreachable = port("tcp", std::move(listener), 80);
  unreachable.target_ip = "255.255.255.255";  // connect(2) fails at once
  Running relay(one(std::move(unreachable)));
  sys::Fd client = connected("127.0.0.1", published, SOCK_STREAM);
  char byte;
  EXPECT_EQ(::recv(client.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

TEST(Relay, ServesTwoHundredConnectionsAtOnceAndKeepsNone) {
  std::uint16_t target = 0, published = 0;
  sys::Fd server = bound("127.0.0.1", SOCK_STREAM, target);
  sys::Fd listener = bound("127.0.0.1", SOCK_STREAM, published);
  Running relay(one(port("tcp", std::move(listener), target)));
  constexpr int kClients = 200;
  std::thread serving([&] {
    std::vector<sys::Fd> peers;
    while (peers.size() < kClients) {
      pollfd wait{server.get(), POLLIN, 0};
      if (::poll(&wait, 1, 5000) <= 0) return;
      peers.emplace_back(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ::send(peers.back().get(), "hello", 5, MSG_NOSIGNAL);
    }
  });
  std::vector<sys::Fd> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(connected("127.0.0.1", published, SOCK_STREAM));
  for (auto& client : clients) EXPECT_EQ(read_to_end(client.get()), "hello");
  serving.join();
  clients.clear();
  for (int i = 0; i < 500 && relay.connections != 0; ++i) ::poll(nullptr, 0, 10);
  EXPECT_EQ(relay.connections, 0u);
}

TEST(Relay, AnswersUdpClientsFromTheAddressTheyAsked) {
  std::uint16_t target = 0, published = 0;
  sys::Fd server = bound("127.0.0.1", SOCK_DGRAM, target);
  sys::Fd socket = bound("0.0.0.0", SOCK_DGRAM, published);
  Running relay(one(port("udp", std::move(socket), target)));
  std::atomic<bool> stop{false};
  std::thread serving([&] {
    while (!stop) {
      pollfd wait{server.get(), POLLIN, 0};
      if (::poll(&wait, 1, 10) <= 0) continue;
      char buffer[65536];
      sockaddr_in peer{};
      socklen_t length = sizeof peer;
      const ssize_t n = ::recvfrom(server.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&peer), &length);
      if (n >= 0)
        ::sendto(server.get(), buffer, static_cast<std::size_t>(n), 0, reinterpret_cast<sockaddr*>(&peer), length);
    }
  });
  for (const char* ip : {"127.0.0.1", "127.0.0.2"}) {
    // A connected socket only takes answers from the address it sent to.
    sys::Fd client = connected(ip, published, SOCK_DGRAM);
    for (std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{9000}}) {
      const std::string data(size, 'x');
      ASSERT_EQ(::send(client.get(), data.data(), data.size(), 0), static_cast<ssize_t>(size));
      char buffer[65536];
      EXPECT_EQ(::recv(client.get(), buffer, sizeof buffer, 0), static_cast<ssize_t>(size));
    }
  }
  for (int i = 0; i < 500 && relay.udp_clients != 2; ++i) ::poll(nullptr, 0, 10);
  EXPECT_EQ(relay.udp_clients, 2u);
  stop = true;
  serving.join();
}

TEST(Relay, HoldsAPortWithoutServingIt) {
  std::uint16_t target = 0, published = 0;
  sys::Fd server = bound("127.0.0.1", SOCK_STREAM, target);
  sys::Fd listener = bound("127.0.0.1", SOCK_STREAM, published);
  const int raw = listener.get();
  Relay relay(one(port("tcp", std::move(listener), target, false)));
  sys::Fd client = connected("127.0.0.1", published, SOCK_STREAM);
  pollfd wait{relay.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&wait, 1, 50), 0);
  wait = {raw, POLLIN, 0};
  EXPECT_EQ(::poll(&wait, 1, 50), 1);
}

TEST(Relay, RefusesATargetThatIsNoAddress) {
  std::uint16_t published = 0;
  RelayPort bad = port("tcp", bound("127.0.0.1", SOCK_STREAM, published), 80);
  bad.target_ip = "web";
  EXPECT_THROW(Relay relay(one(std::move(bad))), Error);
}

}  // namespace
}  // namespace gantry::shim
