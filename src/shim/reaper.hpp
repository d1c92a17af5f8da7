#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>

#include <sys/types.h>

#include "shim/loop.hpp"

namespace gantry::shim {

/// Waits for every child. The shim is a subreaper: what the runtime leaves behind becomes its child.
class Reaper {
 public:
  /// `status` as waitpid(2) gives it; `when_ns` since 1970.
  using Handler = std::function<void(int status, std::int64_t when_ns)>;

  explicit Reaper(Loop& loop);

  /// Calls `handler` from the loop when `pid` has ended; soon, if it has ended while a Hold was there.
  void expect(pid_t pid, Handler handler);
  void forget(pid_t pid) { expected_.erase(pid); }

  /// While one lives, the endings of children that nobody expects yet are kept: a process may end before the pid file
  /// that names it has been read.
  class Hold {
   public:
    explicit Hold(Reaper& reaper) : reaper_(&reaper) { ++reaper.holds_; }
    Hold(Hold&& other) noexcept : reaper_(std::exchange(other.reaper_, nullptr)) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    Reaper* reaper_;
  };

 private:
  struct Ending {
    int status = 0;
    std::int64_t when_ns = 0;
  };
  void collect();

  Loop& loop_;
  sys::Fd signals_;
  Watch watch_;
  Timer late_;
  int holds_ = 0;
  std::unordered_map<pid_t, Handler> expected_;
  std::unordered_map<pid_t, Ending> endings_;
  std::vector<std::pair<pid_t, Ending>> early_;  // expected only after they had ended
};

}  // namespace gantry::shim
