#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.hpp"
#include "buildlink/engine.hpp"
#include "protocol/build_link.hpp"
#include "sys/fd.hpp"

namespace gantry::buildlink {

/// What the daemon handed over.
struct Incoming {
  protocol::Handover request;
  sys::Fd fd;  // blocking
  /// The first header of this name, in any case; empty if there is none.
  std::string header(std::string_view name) const;
  /// All of this name.
  std::vector<std::string> headers(std::string_view name) const;
};

/// Takes what the daemon hands over, until it closes.
class Connections {
 public:
  explicit Connections(sys::Fd socket) : socket_(std::move(socket)) {}
  /// Waits at most `limit`; nullopt if nothing came. Throws unavailable when the daemon is gone.
  std::optional<Incoming> receive(std::chrono::milliseconds limit);

 private:
  sys::Fd socket_;
};

/// The reply to a request that came as an exchange ("build", "prune", …), and its body. For one thread. Writing blocks
/// while the client does not read.
class Exchange {
 public:
  explicit Exchange(sys::Fd fd);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  /// Bytes of the request's body; 0 at its end. Throws cancelled when the client has gone.
  std::size_t read(char* to, std::size_t size);
  /// Before the first byte of the body. At most once.
  void start(int status, std::string_view content_type = "application/json");
  /// Sends some of the reply's body, after start(200) if that was not called. Throws cancelled when the client has
  /// gone.
  void write(std::string_view bytes);
  bool started() const noexcept { return started_; }
  /// An error as the daemon words them: a status and {"message":…}. Nothing if the reply has started.
  void fail(const Error& error);
  /// The end of the body. Without it the client is told that something broke.
  void finish();
  /// Requested when the client goes away, by a thread that watches until this is destroyed.
  std::stop_token client_gone() const { return gone_.get_token(); }

 private:
  void send_frame(std::string_view bytes);
  void watch();

  sys::Fd fd_;
  sys::Fd wake_;  // an eventfd: ends the watching
  bool started_ = false;
  bool finished_ = false;
  std::stop_source gone_;
  std::thread watcher_;
};

/// The daemon as an Engine. `gone` is called, from a thread, when the daemon closes its end.
std::unique_ptr<Engine> connect_engine(sys::Fd requests, std::function<void()> gone);

}  // namespace gantry::buildlink
