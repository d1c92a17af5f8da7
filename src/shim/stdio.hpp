#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "protocol/types.hpp"
#include "shim/attach_client.hpp"
#include "shim/log_output.hpp"
#include "shim/loop.hpp"
#include "sys/pty.hpp"

namespace gantry::shim {

/// Memory for one read of output, shared by all processes of the container and given back when they fall silent.
class ReadBuffer {
 public:
  static constexpr std::size_t kSize = 256 << 10;
  char* get();
  void release() noexcept { memory_.reset(); }

 private:
  struct Free {
    void operator()(char* p) const noexcept;
  };
  std::unique_ptr<char, Free> memory_;
};

struct StdioOptions {
  bool tty = false;
  bool open_stdin = false;
  bool stdin_once = false;
};

/// The standard streams of one process: from it to the log and to every attached client, and from the clients to it.
/// Output is read whether anybody is attached or not; it waits for slow clients as AttachClient says, and for the log
/// where that makes the container wait.
class Stdio {
 public:
  /// `log` may be null. Both must outlive it.
  Stdio(Loop& loop, ReadBuffer& buffer, StdioOptions options, LogOutput* log);
  ~Stdio();
  Stdio(const Stdio&) = delete;
  Stdio& operator=(const Stdio&) = delete;

  /// What the process gets. Empty Fds stand for /dev/null. Not for terminals.
  struct ChildEnds {
    sys::Fd in;
    sys::Fd out;
    sys::Fd err;
  };
  ChildEnds open_pipes();
  /// The master of the process's terminal.
  void set_console(sys::Fd master);
  /// Begins to read output. What the runtime itself prints into the streams before is dropped if it fails, because
  /// then this is never called.
  void begin();

  void attach(sys::Fd socket, protocol::AttachRequest request, std::string first_output, std::string first_input);
  /// Ends the input after what is pending.
  void close_stdin();
  /// Remembered until there is a terminal. false if there will be none.
  bool resize(sys::TerminalSize size);
  sys::TerminalSize wanted_size() const noexcept { return wanted_size_; }

  /// The process has ended. Reads what is left (at most kDrainLimit if a descendant keeps the stream open), calls
  /// `drained`, lets the clients have it (at most kFlushLimit) and the log be written (at most kLogLimit), calls
  /// `flushed`. Slower clients go on afterwards.
  void end(std::function<void()> drained, std::function<void()> flushed);

  std::uint32_t attached() const noexcept;
  const StdioOptions& options() const noexcept { return options_; }
  /// Called when the last client is gone after the end.
  void on_idle(std::function<void()> action) { idle_ = std::move(action); }

  // For AttachClient.
  bool takes_input() const noexcept;
  void input(std::string bytes, AttachClient& from);
  void client_input_ended(AttachClient& client);
  void client_changed();

 private:
  struct Source {
    sys::Fd fd;
    Watch watch;
    logs::Stream stream = logs::Stream::out;
  };
  enum class Read { some, nothing, end };

  void add_source(sys::Fd fd, logs::Stream stream);
  void on_readable(Source& source);
  Read read_once(Source& source);
  void deliver(logs::Stream stream, std::string_view bytes);
  void settle();
  void pause_sources(bool pause);
  void write_input();
  void input_broken();
  void drain_now();
  void drained();
  void flush_limit();
  void flushed();
  void forget_memory_when_silent();

  Loop& loop_;
  ReadBuffer& buffer_;
  const StdioOptions options_;
  LogOutput* log_;
  std::vector<std::unique_ptr<Source>> sources_;
  bool begun_ = false;
  bool paused_ = false;
  bool ending_ = false;
  bool drained_called_ = false;
  bool clients_late_ = false;  // kFlushLimit is over

  sys::Fd input_;
  Watch input_watch_;
  std::string pending_input_;
  bool input_closing_ = false;
  bool input_gone_ = false;  // closed or broken: what comes is dropped
  sys::Fd console_;
  sys::TerminalSize wanted_size_;

  std::vector<std::unique_ptr<AttachClient>> clients_;
  Timer settle_;
  Timer limit_;
  Timer silence_;
  bool active_ = false;
  std::function<void()> drained_;
  std::function<void()> flushed_;
  std::function<void()> idle_;
};

}  // namespace gantry::shim
