#include "events/bus.hpp"

namespace gantry::events {

Bus::Bus(std::size_t history, std::function<void(const Event&)> store) : limit_(history), store_(std::move(store)) {}

void Bus::publish(Event event) {
  event.time = std::max(now(), last_ + std::chrono::nanoseconds(1));
  last_ = event.time;
  kept_.push_back(event);
  while (kept_.size() > limit_) kept_.pop_front();
  if (store_) store_(event);
  for (auto it = readers_.begin(); it != readers_.end();) {
    auto reader = it->lock();
    if (!reader) {
      it = readers_.erase(it);
      continue;
    }
    if (!reader->queue.push(event)) ++reader->missed;
    ++it;
  }
}

void Bus::publish(std::string type, std::string action, std::string actor_id,
                  std::map<std::string, std::string> attributes) {
  Event event;
  event.type = std::move(type);
  event.action = std::move(action);
  event.actor_id = std::move(actor_id);
  event.attributes = std::move(attributes);
  publish(std::move(event));
}

std::shared_ptr<Subscription> Bus::subscribe(std::size_t limit) {
  auto reader = std::make_shared<Subscription>(limit);
  readers_.push_back(reader);
  return reader;
}

std::vector<Event> Bus::history(std::optional<Timestamp> since, std::optional<Timestamp> until) const {
  std::vector<Event> out;
  for (const Event& event : kept_)
    if ((!since || event.time >= *since) && (!until || event.time <= *until)) out.push_back(event);
  return out;
}

void Bus::restore(std::vector<Event> events) {
  for (Event& event : events) {
    last_ = std::max(last_, event.time);
    kept_.push_back(std::move(event));
  }
  while (kept_.size() > limit_) kept_.pop_front();
}

std::size_t Bus::readers() const {
  std::size_t count = 0;
  for (const auto& reader : readers_) count += reader.expired() ? 0 : 1;
  return count;
}

}  // namespace gantry::events
