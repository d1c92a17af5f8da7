#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "async/queue.hpp"
#include "async/task.hpp"
#include "events/event.hpp"

namespace gantry::events {

/// One reader's view of the bus. Bounded: a reader that falls behind by more than the limit misses events and is told
/// how many.
class Subscription {
 public:
  explicit Subscription(std::size_t limit) : queue(limit) {}
  async::Queue<Event> queue;
  std::size_t missed = 0;
};

/// Publishes events to readers and keeps the newest ones. Loop thread only; publish() never waits.
class Bus {
 public:
  /// `history` events are kept in memory; `store` (may be empty) is called with each published event, to make the
  /// history last across restarts.
  explicit Bus(std::size_t history = 1024, std::function<void(const Event&)> store = {});

  /// Stamps the event, in strictly increasing time, and hands it to all readers.
  void publish(Event event);
  void publish(std::string type, std::string action, std::string actor_id,
               std::map<std::string, std::string> attributes);

  /// A reader of all events published from now on. It ends when the pointer is dropped.
  std::shared_ptr<Subscription> subscribe(std::size_t limit = 4096);
  /// Kept events with since <= time <= until, oldest first.
  std::vector<Event> history(std::optional<Timestamp> since, std::optional<Timestamp> until) const;
  /// Puts back what a former process had kept, oldest first. Before anything is published.
  void restore(std::vector<Event> events);
  std::size_t readers() const;

 private:
  const std::size_t limit_;
  std::function<void(const Event&)> store_;
  std::deque<Event> kept_;
  std::list<std::weak_ptr<Subscription>> readers_;
  Timestamp last_{};
};

}  // namespace gantry::events
