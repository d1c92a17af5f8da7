#pragma once

#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "async/task.hpp"

namespace gantry::async {

/// Owns background coroutines. What one throws is logged with its name, except when the group is being cancelled.
/// The only place of the tree that starts a coroutine nobody awaits.
class TaskGroup {
 public:
  explicit TaskGroup(boost::asio::any_io_executor loop);
  ~TaskGroup();  // cancels; the coroutines end at their next suspension
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  /// Into a group that was cancelled: the coroutine ends at its first suspension.
  void spawn(std::string name, Task<void> task);
  void cancel();
  /// Resumes when no coroutine of the group runs.
  Task<void> join();
  std::size_t size() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace gantry::async
