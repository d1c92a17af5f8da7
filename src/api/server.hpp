#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "api/router.hpp"
#include "async/task.hpp"

namespace gantry::api {

/// Paths of PEM files. With `ca` a client must show a certificate that this authority signed.
struct TlsFiles {
  std::string certificate;
  std::string key;
  std::string ca;
  bool verify_client = false;
};

struct ServerOptions {
  /// unix:///path, tcp://host:port, fd:// (every socket that the service manager passed) or fd://3.
  std::vector<std::string> hosts;
  std::string socket_group = "docker";
  /// True if the operator asked for the group: then a group that does not exist is an error, else the socket belongs
  /// to the daemon's group.
  bool socket_group_required = false;
  bool tls = false;  // for the tcp:// hosts
  TlsFiles tls_files;

  std::string engine_version = "28.0.0";  // of the Server header
  bool experimental = false;

  std::size_t max_connections = 4096;
  std::size_t header_limit = 64 << 10;
  std::chrono::milliseconds header_timeout = std::chrono::seconds(10);  // from the first byte to the end of the header
  std::chrono::milliseconds idle_timeout = std::chrono::minutes(3);     // between requests
  std::chrono::milliseconds write_timeout = std::chrono::minutes(2);    // for a reply that is not a stream
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);
};

/// Serves a router over HTTP/1.1. Loop thread only.
class Server {
 public:
  Server(boost::asio::any_io_executor loop, const Router& router, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Binds every host and accepts from now on. Throws Error naming the host that cannot be bound; then none is.
  /// Blocks  for name look-ups of tcp hosts and for reading the TLS files; called once, before the loop is busy.
  void start();
  /// Accepts no more, lets requests in flight end for at most `grace`, then cancels them, except those that must end
  /// (Cancel::never), which get as long again. Unix sockets of ours are removed.
  Task<void> stop(std::chrono::milliseconds grace);

  /// The TCP port that host number `index` listens on; 0 if it is no TCP socket.
  std::uint16_t port(std::size_t index) const;
  std::size_t connections() const noexcept;
  std::uint64_t requests() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace gantry::api
