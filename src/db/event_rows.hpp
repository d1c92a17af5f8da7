#pragma once

#include <cstdint>
#include <vector>

#include "db/sqlite.hpp"
#include "events/event.hpp"

namespace gantry::db {

/// Appends events in one transaction and forgets all but the newest `keep`.
void append_events(Db& db, const std::vector<events::Event>& events, std::int64_t keep);
/// The newest `limit`, oldest first. A row that cannot be read is left out.
std::vector<events::Event> load_events(Db& db, std::int64_t limit);

}  // namespace gantry::db
