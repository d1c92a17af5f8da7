#pragma once

#include <functional>
#include <string>
#include <vector>

#include "logs/pipe.hpp"
#include "shim/loop.hpp"
#include "shim/reaper.hpp"

namespace gantry::shim {

/// A gantry-log process that takes the container's output to a server or into a file. If it dies it is started again,
/// and what it had taken is lost. Whole lines are dropped, except that a line longer than logs::kMaxLine may be cut.
class LogSender {
 public:
  struct Options {
    std::string program;
    std::string verb;                   // of gantry-log
    std::vector<std::string> settings;  // "key=value", for gantry-log
    bool drops = false;                 // rather than make the container wait
    std::size_t room = 0;               // bytes that wait here before anything is dropped
  };
  /// Starts it. `changed` is called when blocked() or running() may have become false.
  LogSender(Loop& loop, Reaper& reaper, Options options, std::function<void()> changed);
  LogSender(const LogSender&) = delete;
  LogSender& operator=(const LogSender&) = delete;

  /// `action` gets the reason if the driver cannot work, and an empty text if it can; at once if that is known.
  void when_ready(std::function<void(const std::string& failure)> action);
  void send(logs::Stream stream, std::string_view bytes, Timestamp now);
  /// No more output will come: the process delivers what it has and ends.
  void finish();
  /// The container has to wait: nothing more is taken at the moment. Never where output may be dropped.
  bool blocked() const noexcept { return !options_.drops && !pending_.empty() && !finishing_; }
  /// Something is still on its way to the process.
  bool busy() const noexcept { return !pending_.empty(); }
  /// After finish(): it has not yet done with everything.
  bool running() const noexcept { return static_cast<bool>(socket_); }
  std::uint64_t dropped_bytes() const noexcept { return dropped_ + told_dropped_; }

 private:
  /// Of one stream.
  struct Line {
    bool open = false;      // what was taken ends within a line
    bool skipping = false;  // what was dropped ends within a line
    bool gap = false;       // something was dropped since the last frame
  };
  void start();
  void on_event(std::uint32_t events);
  void read_lines();
  void settle(const std::string& failure);
  void flush();
  void ended();
  bool has_room() const noexcept;
  std::size_t to_take(const Line& line, std::string_view piece) const;
  void drop(Line& line, std::string_view piece);
  void send_frame(const logs::PipeHeader& header, std::string_view piece);

  Loop& loop_;
  Reaper& reaper_;
  const Options options_;
  std::function<void()> changed_;
  sys::Fd socket_;
  Watch watch_;
  Timer again_;
  std::string lines_;
  std::string pending_;
  std::size_t sent_ = 0;  // of pending_
  Line streams_[2];
  bool known_ = false;  // whether the driver works
  std::string failure_;
  std::vector<std::function<void(const std::string&)>> waiting_;
  bool finishing_ = false;
  unsigned restarts_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint64_t told_dropped_ = 0;  // by the process that runs now
};

}  // namespace gantry::shim
