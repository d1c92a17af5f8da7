#include "engine/event_history.hpp"

#include "base/error.hpp"
#include "base/log.hpp"
#include "db/event_rows.hpp"

namespace gantry::engine {

Task<std::vector<events::Event>> EventHistory::load() {
  db::Db* db = &db_;
  co_return co_await lanes_.db.run(
      [db, keep = keep_] { return db::load_events(*db, static_cast<std::int64_t>(keep)); });
}

void EventHistory::add(const events::Event& event) {
  pending_.push_back(event);
  if (pending_.size() > keep_) pending_.erase(pending_.begin());
  added_.notify();
}

Task<void> EventHistory::flush() {
  if (pending_.empty()) co_return;
  db::Db* db = &db_;
  const std::size_t count = pending_.size();
  co_await lanes_.db.run(
      [db, events = pending_, keep = keep_] { db::append_events(*db, events, static_cast<std::int64_t>(keep)); });
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(std::min(count, pending_.size())));
}

Task<void> EventHistory::run() {
  bool told = false;
  for (;;) {
    while (pending_.empty()) co_await added_.wait();
    // A container's start publishes several in a row: one transaction takes them all.
    co_await async::sleep_for(std::chrono::milliseconds(50));
    bool failed = false;
    try {
      co_await flush();
      told = false;
    } catch (const Error& e) {
      if (!told) log::warning("events cannot be stored now: {}", e.message());
      told = failed = true;
    }
    if (failed) co_await async::sleep_for(std::chrono::seconds(5));
  }
}

}  // namespace gantry::engine
