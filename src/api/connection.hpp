#pragma once

#include <memory>

#include <boost/asio/cancellation_signal.hpp>

#include "api/exchange.hpp"
#include "api/wire.hpp"

namespace gantry::api {

/// One client connection: reads requests, runs their handlers one after the other, writes the replies in order.
class Connection {
 public:
  Connection(std::shared_ptr<ServerContext> context, std::unique_ptr<Transport> transport, Peer peer);

  /// Runs until the connection is closed. The caller spawns it with slot() as its cancellation slot and keeps the
  /// Connection alive meanwhile. Never throws.
  Task<void> serve();
  boost::asio::cancellation_slot slot() { return cancel_.slot(); }

  Wire& wire() { return *wire_; }
  /// Is a request being handled?
  bool is_busy() const noexcept { return busy_ && !lingering_; }
  /// Has its reply begun without an end in sight (a stream, a hijacked connection)?
  bool is_streaming() const noexcept;
  /// Closes an idle connection; cancels the handler of a busy one unless it must end (Cancel::never).
  void cancel();

 private:
  enum class Header { complete, closed, refused };

  Task<bool> serve_one();
  Task<Header> read_header();
  Task<void> answer();
  Task<void> run_handler();
  Task<void> reply_to_failure(std::exception_ptr failure);
  Task<void> refuse(int status, std::string message);
  Task<void> discard_input(std::size_t limit, std::chrono::milliseconds linger);
  Task<bool> finish();
  void start_watching();
  void set_deadline(std::chrono::milliseconds from_now);
  void log_request(Wire::Clock::time_point start) const;

  std::shared_ptr<ServerContext> context_;
  std::shared_ptr<Wire> wire_;
  Peer peer_;
  std::shared_ptr<Exchange> exchange_;  // the request in hand
  boost::asio::cancellation_signal cancel_;
  bool busy_ = false;
  bool lingering_ = false;  // it is answered, and we read what the client still sends
  bool must_end_ = false;   // the handler in hand runs to its end whatever happens to the client
};

}  // namespace gantry::api
