#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>

#include "logdriver/tls.hpp"
#include "logs/options.hpp"
#include "sys/fd.hpp"

namespace gantry::logdriver {

/// Where messages go.
struct Target {
  logs::Address address;
  /// Tried one after the other in place of `address`: the local log's usual sockets, each as datagrams and as a stream.
  bool local_syslog = false;
  std::optional<TlsOptions> tls;
};

/// A connection to a log server over any of the transports, non-blocking but for the look-up of names.
class Connection {
 public:
  /// Throws invalid_argument where a TLS file is wrong.
  explicit Connection(Target target);

  enum class State { closed, connecting, open };
  State state() const noexcept { return state_; }
  bool is_stream() const noexcept { return type_ == SOCK_STREAM; }
  /// -1 while closed.
  int fd() const noexcept { return socket_.get(); }
  /// What to poll for; `more` says that something waits to be sent.
  short wanted(bool more) const noexcept;

  /// Begins to connect. Throws unavailable, in Go's words, if that has failed already. May block on names.
  void open();
  void close() noexcept;
  /// After poll: goes on connecting, or takes what the server said. Throws unavailable when the connection is lost.
  void on_ready(short events);
  /// Sends what the kernel takes of one record: bytes taken, 0 if it takes nothing now. Datagrams go whole or, if they
  /// cannot be sent at all, are dropped as sent. Throws unavailable when the connection is lost.
  std::size_t send(std::string_view bytes);
  /// What the server said; the caller takes it away.
  std::string& received() noexcept { return received_; }

 private:
  struct Candidate {
    int family = AF_UNIX;
    int type = SOCK_STREAM;
    sockaddr_storage address{};
    socklen_t length = 0;
    std::string text;  // as Go's errors name it: "tcp 127.0.0.1:514"
  };
  void resolve();
  void add_unix(const std::string& path, int type);
  void try_next();
  void connected();
  std::size_t send_datagram(std::string_view bytes);
  bool send_as_file(std::string_view bytes);

  Target target_;
  State state_ = State::closed;
  int type_ = SOCK_STREAM;
  sys::Fd socket_;
  std::unique_ptr<Tls> tls_;
  bool shaking_hands_ = false;
  std::vector<Candidate> candidates_;  // those that are still to be tried
  std::string current_;
  std::string failure_;
  std::string received_;
};

}  // namespace gantry::logdriver
