#pragma once

#include <array>
#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>

#include "shim/relay.hpp"

/// The parts of the relay; only relay*.cpp see this.
namespace gantry::shim {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  static SocketAddress parse(const std::string& ip, std::uint16_t port);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  std::string key() const { return {reinterpret_cast<const char*>(&storage), length}; }
};

/// Something in the relay's epoll set.
struct RelayItem {
  virtual ~RelayItem() = default;
  virtual void ready() = 0;
};

struct Relay::State {
  struct Listener;
  struct Connection;
  struct UdpPort;
  struct UdpClient;
  struct Clock;

  static constexpr std::size_t kMaxConnections = 512;  // six descriptors each
  static constexpr std::size_t kMaxUdpClients = 1024;
  static constexpr auto kUdpIdle = std::chrono::seconds(90);

  explicit State(std::vector<RelayPort> ports);
  ~State();
  void watch(int fd, std::uint32_t events, RelayItem* item);
  void forget(int fd) noexcept;
  void wait_and_run();
  /// No descriptors or too many connections: accepting goes on when one has ended, or a second later.
  void pause_accepting();
  void resume_accepting();
  /// The item is destroyed once no event of this round can name it any more.
  void retire(std::unique_ptr<RelayItem> item);
  void drop(Connection* connection);
  void drop(UdpClient* client);
  void expire_udp_clients();
  void run_again(Connection* connection);

  sys::Fd epoll;
  std::unique_ptr<Clock> clock;
  bool paused = false;
  std::vector<std::unique_ptr<RelayItem>> ports;
  std::vector<sys::Fd> held;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections;
  std::list<std::unique_ptr<UdpClient>> udp_clients;  // longest idle first
  std::vector<std::unique_ptr<RelayItem>> retired;
  std::set<RelayItem*> dead;         // retired in this round
  std::set<Connection*> unfinished;  // had more to carry than their share of this round
};

/// A timer for idle clients and paused listeners, and the wake-up for unfinished connections.
struct Relay::State::Clock : RelayItem {
  explicit Clock(State& owner);
  void ready() override;
  void arm(std::chrono::milliseconds delay);
  State& state;
  sys::Fd timer;
  bool armed = false;
};

struct Relay::State::Listener : RelayItem {
  Listener(State& owner, RelayPort port);
  void ready() override;
  State& state;
  sys::Fd socket;
  SocketAddress target;
};

struct Relay::State::Connection : RelayItem {
  Connection(State& owner, sys::Fd client, const SocketAddress& target);
  void ready() override;
  void carry();

  struct Direction {
    int from = -1;
    int to = -1;
    sys::Fd pipe_in, pipe_out;
    std::size_t buffered = 0;
    bool ended = false;   // `from` has no more
    bool closed = false;  // and `to` was told
  };
  enum class Progress { idle, more, broken };
  Progress pump(Direction& way);

  State& state;
  sys::Fd client;
  sys::Fd server;
  bool connected = false;
  std::array<Direction, 2> ways;
};

struct Relay::State::UdpPort : RelayItem {
  UdpPort(State& owner, RelayPort port);
  void ready() override;
  State& state;
  sys::Fd socket;
  SocketAddress target;
  std::unordered_map<std::string, UdpClient*> clients;  // by client address and the address it wrote to
};

struct Relay::State::UdpClient : RelayItem {
  UdpClient(State& owner, UdpPort& origin, std::string key, const SocketAddress& from, std::string control);
  void ready() override;
  void touch();
  State& state;
  UdpPort& port;
  std::string key;
  SocketAddress address;
  std::string control;  // the answers' control message: they come from the address that was asked
  sys::Fd server;
  std::chrono::steady_clock::time_point last;
  std::list<std::unique_ptr<UdpClient>>::iterator place;
};

}  // namespace gantry::shim
