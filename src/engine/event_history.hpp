#pragma once

#include <vector>

#include "async/lanes.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "events/event.hpp"

namespace gantry::db {
class Db;
}

namespace gantry::engine {

/// Writes events behind the bus's back, many in one transaction, so that publishing never waits for the disk. A crash
/// loses at most the events of the last moments; a full disk loses those that do not fit in memory any more.
class EventHistory {
 public:
  EventHistory(async::Lanes& lanes, db::Db& db, std::size_t keep) : lanes_(lanes), db_(db), keep_(keep) {}

  Task<std::vector<events::Event>> load();
  void add(const events::Event& event);
  /// Writes whatever is added, until cancelled.
  Task<void> run();
  Task<void> flush();

 private:
  async::Lanes& lanes_;
  db::Db& db_;
  const std::size_t keep_;
  std::vector<events::Event> pending_;
  async::Signal added_;
};

}  // namespace gantry::engine
