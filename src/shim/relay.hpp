#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sys/fd.hpp"

namespace gantry::shim {

/// A published port of the container. The socket was bound by gantryd (TCP: it listens) and holds the port against the
/// rest of the host for as long as the shim lives; a filter on it drops everything until the relay takes over.
struct RelayPort {
  std::string proto;  // "tcp" or "udp"
  std::string target_ip;
  std::uint16_t target_port = 0;
  bool serve = true;  // false: only hold the port
  sys::Fd socket;
};

/// Carries what comes to published ports by ways that the kernel's address translation does not cover: the host's
/// loopback, and IPv6 host addresses of containers without IPv6. Whatever else reaches the sockets is served too, for
/// example while the firewall is being repaired.
///
/// Short TCP messages are read and written, many bytes go through pipes with splice(2) and never enter the process; a
/// side that ends its stream ends only its own direction. UDP clients have a socket each, for 90 seconds after their
/// last datagram. Connections and clients are bounded; further connections wait in the kernel's backlog, the longest
/// idle UDP client makes room.
///
/// Single-threaded. Put fd() into an epoll loop and call on_ready() when it is readable; neither ever blocks.
class Relay {
 public:
  /// Throws Error if the kernel refuses a descriptor or a target is no address.
  explicit Relay(std::vector<RelayPort> ports);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  int fd() const noexcept;
  void on_ready();
  /// New connections and clients of all ports go to this address of the container's, if it is of the same family as
  /// the old one. Those that exist stay.
  void retarget(const std::string& target_ip);
  std::size_t connections() const noexcept;
  std::size_t udp_clients() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::shim
