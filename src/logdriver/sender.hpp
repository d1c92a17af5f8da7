#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "logdriver/connection.hpp"
#include "logdriver/encoder.hpp"
#include "logdriver/settings.hpp"
#include "logs/pipe.hpp"

namespace gantry::logdriver {

/// How hard a driver tries, in milliseconds.
struct RetryPolicy {
  std::int64_t first_wait = 250;
  double growth = 2;
  std::int64_t longest_wait = 15'000;
  std::int64_t connect_limit = 10'000;
  /// In which the server must have taken a message, and acknowledged one; 0: no limit. Then the connection is made anew
  /// and the message sent again.
  std::int64_t write_limit = 0;
  std::int64_t read_limit = 0;
  /// In blocking mode the container waits for a server that is away through so many attempts and so much time after the
  /// loss of the connection; then what does not fit into the queue is dropped.
  long long patient_attempts = 0;
  std::int64_t patient_ms = 0;
};
RetryPolicy retry_policy(const Settings& settings);
Target make_target(const Settings& settings);

/// Takes output from the shim, puts it into the driver's words, and delivers it.
///
/// What waits is bounded. Where output may be dropped the shim is always read at once, whatever the server does, and
/// new messages that do not fit are dropped and counted; otherwise the shim, and with it the container, has to wait as
/// the policy says. A lost connection is made again, ever less often.
class Sender {
 public:
  Sender(const Settings& settings, int shim);
  /// Until the shim has closed its end and what was printed is delivered, or cannot be in a bounded time.
  /// Returns false if the driver cannot work at all; the shim has been told why.
  bool run();

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::time_point kNever = Clock::time_point::max();
  bool begin();
  bool connect_now();
  void loop_once();
  int timeout_ms() const;
  bool may_read() const;
  void read_shim();
  void process_input();
  bool process_frame_bytes();
  void flush_carry(logs::Stream stream, Timestamp time);
  void take(const LogMessage& message);
  bool full() const;
  bool patient() const;
  void connect();
  void lost(const std::string& why);
  void deliver();
  bool ack_missing();
  void record_done();
  static Clock::time_point deadline_in(std::int64_t ms);
  void report_dropped(bool now);
  void tell(const std::string& line) const;
  bool finished() const;

  Settings settings_;
  int shim_;
  bool drops_;
  std::size_t limit_;
  std::size_t max_records_;
  RetryPolicy policy_;
  std::unique_ptr<Encoder> encoder_;
  Connection connection_;
  Splitter splitter_;

  std::string input_;
  std::size_t consumed_ = 0;  // of input_
  std::optional<logs::PipeHeader> frame_;
  Timestamp last_time_{};
  bool input_ended_ = false;
  Clock::time_point ended_at_{};

  std::deque<Record> queue_;
  std::size_t queued_ = 0;  // bytes
  std::size_t sent_ = 0;    // of the first record
  bool awaiting_ack_ = false;
  Clock::time_point server_deadline_ = kNever;  // for the first record: to be taken, then to be acknowledged
  std::vector<Record> scratch_;

  long long failures_ = 0;  // in a row
  Clock::time_point lost_at_{};
  Clock::time_point next_try_{};
  Clock::time_point connect_deadline_{};
  Clock::time_point progress_at_{};
  std::uint64_t dropped_ = 0;
  std::uint64_t reported_ = 0;
  Clock::time_point report_at_{};
};

}  // namespace gantry::logdriver
