#pragma once

#include <chrono>
#include <memory>

#include "async/task.hpp"

namespace gantry::async {

/// Wakes the coroutines that wait for something to change. Loop thread only. It holds no state of its own: a waiter
/// re-checks its condition after every wake-up.
class Signal {
 public:
  Signal();
  ~Signal();
  Signal(Signal&&) noexcept;
  Signal& operator=(Signal&&) noexcept;

  /// Resumes at the next notify(). Throws when cancelled.
  Task<void> wait();
  /// As wait(); false if `limit` passed first.
  Task<bool> wait_for(std::chrono::nanoseconds limit);
  /// Wakes all that wait now; they run later, from the loop.
  void notify();
  bool has_waiters() const noexcept;

 private:
  struct Waiters;
  std::shared_ptr<Waiters> waiters_;
};

/// Suspends the calling coroutine. Throws when cancelled.
Task<void> sleep_for(std::chrono::nanoseconds duration);

}  // namespace gantry::async
