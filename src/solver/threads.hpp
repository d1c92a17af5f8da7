#pragma once

#include <functional>
#include <stop_token>
#include <vector>

#include <pthread.h>

namespace gantry::solver {

/// A thread with a stack for graphs of thousands of steps in a row; joined by the destructor.
class DeepThread {
 public:
  /// Throws unavailable if there can be no more threads.
  explicit DeepThread(std::function<void()> body);
  ~DeepThread();
  DeepThread(const DeepThread&) = delete;
  DeepThread& operator=(const DeepThread&) = delete;

 private:
  pthread_t thread_{};
};

/// A stop token that follows others, and can be stopped by itself.
class LinkedStop {
 public:
  explicit LinkedStop(const std::stop_token& a, const std::stop_token& b = {});
  std::stop_token token() const noexcept { return source_.get_token(); }
  void request_stop() noexcept { source_.request_stop(); }

 private:
  struct Forward {
    std::stop_source source;
    void operator()() const noexcept { std::stop_source(source).request_stop(); }
  };
  std::stop_source source_;
  std::stop_callback<Forward> a_, b_;
};

/// Throws cancelled "context canceled" if it is.
void require_running(const std::stop_token& stop);

using Task = std::function<void(const std::stop_token&)>;

/// Runs all of them, at the same time as far as threads allow, and returns when all have ended. The first error stops
/// the others and is thrown (but that of a real failure goes before that of a stop).
void run_all(std::vector<Task> tasks, const std::stop_token& stop);

}  // namespace gantry::solver
