#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "network/types.hpp"

namespace gantry::network {

/// "80/tcp". `range_end` is the same as `port` unless it was "80-90/tcp".
struct PortSpec {
  std::uint16_t port = 0;
  std::uint16_t range_end = 0;
  std::string proto;

  /// Throws invalid_argument. The protocol is tcp if there is none; sctp and udp are the others.
  static PortSpec parse(std::string_view text);
  std::string str() const;
};

/// One host address and port that leads to a container's port.
struct PublishedPort {
  std::string proto;
  IpAddress host_ip;
  std::uint16_t host_port = 0;
  std::uint16_t container_port = 0;
  sys::Fd socket;  // empty for sctp where the kernel has no such sockets, and for ports taken over from rows
};

/// What to publish: a container's port, the host addresses, and the host ports to choose from (0: ephemeral).
struct PortRequest {
  std::string proto;
  std::uint16_t container_port = 0;
  std::vector<IpAddress> host_ips;
  std::uint16_t first = 0;
  std::uint16_t last = 0;
};

/// Turns a client's bindings into requests. `both_families`: the host can listen on IPv6, so a binding without an
/// address means 0.0.0.0 and [::]. Exact ports come first, so that a range does not take them. Throws invalid_argument.
std::vector<PortRequest> plan_ports(const PortMap& bindings, const std::vector<std::string>& exposed, bool publish_all,
                                    const std::string& default_bind_ip, bool both_families);

/// Gives out host ports. A port is held by a real socket, so that other programs on the host see it as taken; the
/// books here give the text that clients know when a container has it. Loop thread only; nothing blocks.
class PortAllocator {
 public:
  struct Range {
    std::uint16_t first = 49153;
    std::uint16_t last = 65535;
    std::set<std::uint16_t> reserved;
  };
  /// The host's ephemeral range (ip_local_port_range without ip_local_reserved_ports).
  static Range host_range();

  explicit PortAllocator(Range ephemeral) : ephemeral_(std::move(ephemeral)), next_(ephemeral_.first) {}

  /// The same host port for all of the request's addresses. Throws internal with Docker's texts:
  /// "Bind for 0.0.0.0:8080 failed: port is already allocated", "all ports are allocated",
  /// "failed to bind host port 0.0.0.0:80/tcp: address already in use".
  std::vector<PublishedPort> allocate(const PortRequest& request);
  /// Enters a port that a container holds already (its shim has the socket).
  void adopt(const std::string& proto, const IpAddress& host_ip, std::uint16_t port);
  void release(const std::string& proto, const IpAddress& host_ip, std::uint16_t port);
  std::size_t held() const noexcept;

 private:
  bool is_taken(const std::string& proto, const IpAddress& ip, std::uint16_t port) const;
  /// Empty if the host refuses the port; `failure` says why.
  std::vector<PublishedPort> try_port(const PortRequest& request, std::uint16_t port, std::string& failure);
  std::vector<PublishedPort> allocate_from(const PortRequest& request, std::uint16_t first, std::uint16_t last,
                                           bool ephemeral);

  Range ephemeral_;
  std::uint32_t next_;
  std::map<std::pair<std::string, std::uint16_t>, std::set<IpAddress>> taken_;
};

struct BoundPort {
  sys::Fd socket;
  int error = 0;  // errno value of what failed
};
/// A socket that holds host_ip:port. TCP: listening, with a filter that drops every packet; UDP: the same, bound;
/// SCTP: no socket and no error if the kernel has no SCTP.
BoundPort bind_host_port(const std::string& proto, const IpAddress& host_ip, std::uint16_t port);

/// True if this host can listen on IPv6.
bool host_has_ipv6();

}  // namespace gantry::network
