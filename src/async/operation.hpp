#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>

#include "async/task.hpp"
#include "base/error.hpp"

namespace gantry::async {

class Operations;

/// A multi-step verb in flight: it names its current step, and knows how to undo the finished ones.
///
///     Task<Id> Containers::create(Spec spec) {
///       auto op = operations_.begin("container.create", spec.name);
///       co_return co_await op->guard(create_steps(op, std::move(spec)));
///     }
///
/// In `create_steps`, `op->step("…")` says what comes next and `op->undo(…)` how to take back what was just done.
class Operation {
 public:
  Operation(Operations& all, std::string what, std::string subject);
  ~Operation();
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  void step(std::string_view name);
  void undo(std::function<Task<void>()> action) { undo_.push_back(std::move(action)); }
  /// What was done so far stays, whatever happens later.
  void commit() { undo_.clear(); }

  /// Runs `steps`. If they throw, the undo actions run last to first, and the error goes on with the name of the step
  /// that broke (unless its text is final, see Error). The rollback runs with cancellation disabled: a client that
  /// hangs up in the middle leaves nothing behind.
  template <class T>
  Task<T> guard(Task<T> steps) {
    std::exception_ptr failure;
    try {
      co_return co_await std::move(steps);
    } catch (Error& e) {
      e.add_context(step_name());
      failure = std::current_exception();
    } catch (...) {
      failure = std::current_exception();
    }
    // Here and not in roll_back(): awaiting it would already throw in a cancelled coroutine.
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
    co_await roll_back();
    std::rethrow_exception(failure);
  }

 private:
  friend class Operations;
  std::string step_name() const;
  Task<void> roll_back();
  void end_step(std::chrono::steady_clock::time_point at);

  Operations& all_;
  const std::string what_;
  const std::string subject_;
  const std::chrono::steady_clock::time_point since_;
  std::string step_;  // guarded by all_.mutex_: the watchdog's thread reads it
  std::chrono::steady_clock::time_point step_since_;
  std::string timing_;  // the finished steps with their milliseconds, for the debug log
  std::vector<std::function<Task<void>()>> undo_;
  std::list<Operation*>::iterator place_;
};

using OperationPtr = std::shared_ptr<Operation>;

/// Every operation in flight, for /debug/ops, SIGUSR1 and the watchdog. list() may be called from any thread.
class Operations {
 public:
  struct Entry {
    std::string what;
    std::string subject;
    std::string step;
    std::chrono::milliseconds age;
    std::chrono::milliseconds step_age;
  };

  OperationPtr begin(std::string what, std::string subject);
  std::vector<Entry> list() const;

 private:
  friend class Operation;
  mutable std::mutex mutex_;
  std::list<Operation*> live_;
};

}  // namespace gantry::async
