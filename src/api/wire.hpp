#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "api/transport.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"

namespace gantry::api {

/// A connection's bytes: a bounded read buffer over a Transport, which can also watch for the client going away while
/// nobody reads. Watching means reading ahead; what arrives stays in the buffer for whoever reads next, so a pipelined
/// request or the first bytes of a hijacked stream are never lost. Loop thread only; always owned by a shared_ptr, so
/// that operations of the kernel's which are still pending keep it alive.
class Wire : public std::enable_shared_from_this<Wire> {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Wire(std::unique_ptr<Transport> transport);
  ~Wire();

  /// What has been read and not consumed.
  std::string_view buffered() const { return {data_.data() + begin_, end_ - begin_}; }
  void consume(std::size_t n);
  /// Reads in larger pieces from now on, for a long body.
  void reserve(std::size_t size) { wanted_ = size; }
  /// Gives back a large buffer that is empty.
  void shrink();

  /// Waits until more is buffered; the buffer grows as needed, so its bound is the caller's duty. False at the end of
  /// the stream. Throws Error(cancelled) if the connection broke.
  Task<bool> fill();
  /// Throws Error(cancelled).
  Task<void> write(Transport::Buffers buffers);

  /// From now on `on_gone` is called, once, when the client has gone. A unix peer that only closes its own direction
  /// still waits for the reply; a TCP peer that does counts as gone, since nobody can tell (Go does the same).
  void watch(std::function<void()> on_gone);
  /// Somebody reads from now on: the end of the stream is theirs to see. A watch that is set goes on for hang-ups of
  /// both directions only.
  void stop_reading_ahead();
  void stop_watching();
  bool is_gone() const noexcept { return gone_; }
  /// Resumes when the client has hung up (closed both directions).
  Task<void> wait_hangup();

  /// Waits until no read is pending, without losing what it read, and gives the descriptor away.
  Task<sys::Fd> release();
  void close();
  bool is_closed() const noexcept { return closed_; }

  /// When the server closes the connection unless something happens; Clock::time_point::max() for never.
  Clock::time_point deadline = Clock::time_point::max();
  Transport& transport() { return *transport_; }

 private:
  void start_read();
  void read_done(boost::system::error_code ec, std::size_t n);
  void start_hangup_wait();
  void went_away();

  std::unique_ptr<Transport> transport_;
  std::vector<char> data_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t wanted_ = 0;
  bool reading_ = false;
  bool eof_ = false;
  bool broken_ = false;
  bool closed_ = false;
  bool gone_ = false;
  bool hangup_pending_ = false;
  bool read_ahead_ = false;
  std::function<void()> on_gone_;
  async::Signal read_changed_;
  async::Signal hung_up_;
};

}  // namespace gantry::api
