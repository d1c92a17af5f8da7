#pragma once

#include <deque>
#include <optional>

#include "async/signal.hpp"
#include "async/task.hpp"

namespace gantry::async {

/// A bounded queue between coroutines of the loop. push() never waits: a full queue says so, and its owner decides
/// whether that drops the item or cuts the reader off.
template <class T>
class Queue {
 public:
  explicit Queue(std::size_t limit) : limit_(limit) {}

  /// False if the queue is full or closed.
  bool push(T item) {
    if (closed_ || items_.size() >= limit_) return false;
    items_.push_back(std::move(item));
    changed_.notify();
    return true;
  }
  /// The next item; nullopt when the queue is closed and empty. Throws when cancelled.
  Task<std::optional<T>> pop() {
    while (items_.empty()) {
      if (closed_) co_return std::nullopt;
      co_await changed_.wait();
    }
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    co_return item;
  }
  void close() {
    closed_ = true;
    changed_.notify();
  }
  bool closed() const noexcept { return closed_; }
  std::size_t size() const noexcept { return items_.size(); }

 private:
  const std::size_t limit_;
  std::deque<T> items_;
  bool closed_ = false;
  Signal changed_;
};

}  // namespace gantry::async
