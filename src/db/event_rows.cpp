#include "db/event_rows.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "json/codec.hpp"

namespace gantry::db {

extern const char* const kEventSchema;
const char* const kEventSchema = R"sql(
CREATE TABLE events (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  time_ns    INTEGER NOT NULL,
  type       TEXT NOT NULL,
  action     TEXT NOT NULL,
  actor_id   TEXT NOT NULL,
  attributes TEXT NOT NULL   -- JSON object of strings
);
)sql";

void append_events(Db& db, const std::vector<events::Event>& events, std::int64_t keep) {
  Tx tx(db);
  Stmt insert(db, "INSERT INTO events (time_ns, type, action, actor_id, attributes) VALUES (?, ?, ?, ?, ?)");
  for (const events::Event& event : events) {
    insert.bind(1, static_cast<std::int64_t>(event.time.time_since_epoch().count())).bind(2, event.type);
    insert.bind(3, event.action).bind(4, event.actor_id).bind(5, json::encode_text(event.attributes)).run();
  }
  Stmt forget(db, "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?");
  forget.bind(1, keep).run();
  tx.commit();
}

std::vector<events::Event> load_events(Db& db, std::int64_t limit) {
  std::vector<events::Event> out;
  Stmt select(db, "SELECT time_ns, type, action, actor_id, attributes FROM events ORDER BY seq DESC LIMIT ?");
  select.bind(1, limit);
  while (select.step()) {
    events::Event event;
    event.time = Timestamp(std::chrono::nanoseconds(select.integer(0)));
    event.type = select.text(1);
    event.action = select.text(2);
    event.actor_id = select.text(3);
    try {
      event.attributes = json::decode_text<json::StringMap>(select.text(4));
    } catch (const Error&) {
      continue;
    }
    out.push_back(std::move(event));
  }
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace gantry::db
