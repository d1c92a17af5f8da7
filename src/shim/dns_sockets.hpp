#pragma once

#include <cstdint>
#include <string>

#include <sys/socket.h>

#include "shim/dns_names.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"

/// The name server's sockets, some of which live in the container's network namespace.
namespace gantry::shim::dns {

/// The container's network namespace, entered by the shim's only thread for as long as it takes to make a socket.
class ContainerNetwork {
 public:
  /// Throws if either namespace cannot be opened.
  explicit ContainerNetwork(const sys::Path& netns);

  /// In there for as long as it lives.
  class Visit {
   public:
    explicit Visit(const ContainerNetwork& network);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    const ContainerNetwork& network_;
  };

 private:
  sys::Fd own_;
  sys::Fd container_;
};

struct Listeners {
  sys::Fd udp;
  sys::Fd tcp;
};
/// Sockets that get what the container sends to 127.0.0.11:53.
///
/// They are bound to other ports, so that a name server in the container can listen at 0.0.0.0:53 itself (a listening
/// TCP socket allows no second one on an overlapping address, whatever its options), and two stateless rules in the
/// container's namespace rewrite the port numbers: no connection tracking is switched on for the container's traffic.
/// Requests are rewritten after connection tracking has seen them and answers before, so that a container which does
/// use it sees port 53 both ways.
Listeners listen_in(const ContainerNetwork& network);

/// A connecting socket to a name server; the kernel chooses a random port. Empty on any failure.
sys::Fd connect_to(const ContainerNetwork& network, const Upstream& server, bool tcp);

inline constexpr const char* kServerAddress = "127.0.0.11";
inline constexpr std::uint16_t kServerPort = 53;

}  // namespace gantry::shim::dns
