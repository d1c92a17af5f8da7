#include "async/mutex.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"

namespace gantry::async {

void Mutex::Guard::unlock() {
  if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->release();
}

Task<Mutex::Guard> Mutex::lock(std::string what, std::chrono::milliseconds limit) {
  if (!held_) {
    held_ = true;
    holder_ = std::move(what);
    co_return Guard(this);
  }
  Ticket ticket;
  queue_.push_back(&ticket);
  // A waiter that is granted the lock and cancelled in the same turn must pass it on.
  struct Leave {
    Mutex* mutex;
    Ticket* ticket;
    bool taken = false;
    ~Leave() {
      std::erase(mutex->queue_, ticket);
      if (ticket->granted && !taken) mutex->release();
    }
  } leave{this, &ticket};
  const bool in_time = co_await ticket.turn.wait_for(limit);
  if (!in_time && !ticket.granted)
    throw Error(Errc::unavailable,
                fmt::format("{} did not begin within {} ms: {} is still running", what, limit.count(), holder_));
  leave.taken = true;
  holder_ = std::move(what);
  co_return Guard(this);
}

void Mutex::release() {
  if (queue_.empty()) {
    held_ = false;
    holder_.clear();
    return;
  }
  Ticket* next = queue_.front();
  queue_.pop_front();
  next->granted = true;
  next->turn.notify();
}

}  // namespace gantry::async
