#pragma once

#include <array>
#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
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
  virtual void ready(std::uint32_t events) = 0;
  bool retired = false;  // in this round; nothing may come to it any more
};

struct Relay::State {
  struct Listener;
  struct Connection;
  struct UdpPort;
  struct UdpClient;
  struct Clock;

  static constexpr std::size_t kMaxConnections = 512;  // two descriptors each, and four while much flows
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
  /// Destroyed once no event of this round can name it any more.
  void retire(std::shared_ptr<void> item);
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
  std::vector<std::shared_ptr<void>> retired;
  std::set<Connection*> unfinished;  // had more to carry than their share of this round
};

/// A timer for idle clients and paused listeners, and the wake-up for unfinished connections.
struct Relay::State::Clock : RelayItem {
  explicit Clock(State& owner);
  void ready(std::uint32_t events) override;
  void arm(std::chrono::milliseconds delay);
  State& state;
  sys::Fd timer;
  bool armed = false;
};

struct Relay::State::Listener : RelayItem {
  Listener(State& owner, RelayPort port);
  void ready(std::uint32_t events) override;
  State& state;
  sys::Fd socket;
  SocketAddress target;
};

/// Two sockets and what is on its way between them. Short messages are read and written, which costs two calls; a
/// direction with much to carry goes through a pipe instead, so that its bytes never enter the process.
struct Relay::State::Connection {
  Connection(State& owner, sys::Fd client, const SocketAddress& target);
  /// Throws Error if the kernel refuses; a target that cannot be reached resets the client.
  void start(const SocketAddress& target);
  void carry();

  struct Side : RelayItem {
    explicit Side(Connection& owner) : connection(owner) {}
    void ready(std::uint32_t events) override;
    Connection& connection;
    sys::Fd socket;
  };
  struct Direction {
    Side* from = nullptr;
    Side* to = nullptr;
    bool readable = false;  // `from` may have more
    bool writable = false;  // `to` may take more
    bool ending = false;    // the end of `from`, or an urgent byte, is near
    bool ended = false;     // `from` has no more
    bool closed = false;    // and `to` was told
    bool much = false;      // the next piece goes through the pipe
    std::string rest;       // was read, and `to` did not take it yet
    std::size_t piped = 0;  // the same, inside the pipe
    sys::Fd pipe_in, pipe_out;
  };
  enum class Progress { waiting, more, broken };

  State& state;
  Side client;
  Side server;
  bool connected = false;
  std::array<Direction, 2> ways;

 private:
  Progress pump(Direction& way);
  // One step each; false: the connection is broken.
  bool take(Direction& way);
  bool deliver(Direction& way);
  bool send(Direction& way, std::string_view bytes);
  bool end(Direction& way);
  static void expect_much(Direction& way);
  void reset();
};

struct Relay::State::UdpPort : RelayItem {
  UdpPort(State& owner, RelayPort port);
  void ready(std::uint32_t events) override;
  State& state;
  sys::Fd socket;
  SocketAddress target;
  std::unordered_map<std::string, UdpClient*> clients;  // by client address and the address it wrote to
};

struct Relay::State::UdpClient : RelayItem {
  UdpClient(State& owner, UdpPort& origin, std::string key, const SocketAddress& from, std::string control);
  void ready(std::uint32_t events) override;
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
