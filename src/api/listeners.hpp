#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api/server.hpp"
#include "sys/listen.hpp"

namespace gantry::api {

/// A socket that clients connect to.
class Listener {
 public:
  Listener(std::string name, sys::UnixListener socket);
  Listener(std::string name, sys::Fd socket, int family, bool tls);

  int fd() const noexcept { return socket_.fd.get(); }
  sys::Fd duplicate() const { return socket_.fd.duplicate(); }
  int family() const noexcept { return family_; }
  bool uses_tls() const noexcept { return tls_; }
  const std::string& name() const noexcept { return name_; }
  /// 0 for a unix socket.
  std::uint16_t port() const;
  /// Stops listening, and removes the file of a unix socket that is still ours.
  void close() noexcept;

 private:
  std::string name_;
  sys::UnixListener socket_;
  int family_;
  bool tls_;
  bool owns_file_;
};

/// Opens all of `options.hosts`. Throws Error naming the one that cannot be opened; then none stays open.
/// Blocks  for name look-ups.
std::vector<Listener> open_listeners(const ServerOptions& options);

}  // namespace gantry::api
