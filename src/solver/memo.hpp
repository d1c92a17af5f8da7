#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <utility>

#include "base/error.hpp"
#include "solver/solver.hpp"
#include "solver/threads.hpp"

namespace gantry::solver {

/// Something that is found out once, by the first who wants it, while others wait. Failures are kept, too; a stop is
/// not: the next who wants it tries again.
template <class T>
class Memo {
 public:
  /// `make` throws SolveError, or Error(cancelled). So does this.
  template <class Make>
  const T& get(const std::stop_token& stop, Make&& make) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, stop, [&] { return value_ || error_ || !running_; });
      if (value_) return *value_;
      if (error_) throw SolveError(*error_);  // a copy: callers add to it
      require_running(stop);
      running_ = true;
    }
    try {
      T made = std::forward<Make>(make)();
      const std::lock_guard lock(mutex_);
      value_ = std::move(made);
      running_ = false;
      changed_.notify_all();
      return *value_;
    } catch (const SolveError& e) {
      end(e);
      throw;
    } catch (...) {
      end(std::nullopt);
      throw;
    }
  }

  bool known() const {
    const std::lock_guard lock(mutex_);
    return value_.has_value();
  }
  /// Only when it is known. It does not change any more.
  const T& value() const {
    const std::lock_guard lock(mutex_);
    return *value_;
  }

 private:
  void end(std::optional<SolveError> error) {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    running_ = false;
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  bool running_ = false;
  std::optional<T> value_;
  std::optional<SolveError> error_;
};

}  // namespace gantry::solver
