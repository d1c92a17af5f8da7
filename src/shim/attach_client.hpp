#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "logs/format.hpp"
#include "protocol/types.hpp"
#include "shim/loop.hpp"

namespace gantry::shim {

class Stdio;

/// One connection that carries a process's streams.
///
/// Output that its socket does not take is queued. While the queue is full the process's output is not read, so that
/// a client that is merely slower than the process loses nothing; a client that makes no headway is cut off (see
/// AttachRequest::patience_ms), so that the process waits for it once and not for long.
class AttachClient {
 public:
  /// `first_output` goes out before anything else; `first_input` came in with the request.
  AttachClient(Loop& loop, Stdio& stdio, sys::Fd socket, protocol::AttachRequest request, bool raw,
               std::string first_output, std::string first_input);
  AttachClient(const AttachClient&) = delete;
  AttachClient& operator=(const AttachClient&) = delete;

  void output(logs::Stream stream, std::string_view bytes);
  /// No more output will come: closes when all of it is delivered.
  void finish();
  /// The process is draining its last output: take it even above the bound (up to kDrainRoom), it is little.
  void accept_last_output() { draining_ = true; }
  /// The process takes input (again), or never will again.
  void input_ready();

  bool dead() const noexcept { return !socket_; }
  bool full() const noexcept { return full_ && !dead(); }
  bool uses_stdin() const noexcept { return request_.use_stdin; }

 private:
  void on_event(std::uint32_t events);
  void read_input();
  void input_ended();
  void enqueue(std::string_view bytes);
  void flush();
  void judge_queue();
  void close();
  void update_watch();
  std::size_t queued() const noexcept { return queue_.size() - sent_; }

  Stdio& stdio_;
  Loop& loop_;
  protocol::AttachRequest request_;
  const bool raw_;
  sys::Fd socket_;
  Watch watch_;
  std::string queue_;
  std::size_t sent_ = 0;  // bytes of the queue that are delivered
  std::string first_input_;
  Timer patience_;
  bool full_ = false;
  bool draining_ = false;
  bool finishing_ = false;
  bool input_open_ = true;
  bool hung_up_ = false;
};

}  // namespace gantry::shim
