#include "db/container_rows.hpp"

namespace gantry::db {

extern const char* const kContainerSchema;
const char* const kContainerSchema = R"sql(
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE containers (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  created_ns INTEGER NOT NULL,
  config     TEXT NOT NULL,   -- JSON: engine/container_codec.cpp
  state      TEXT NOT NULL    -- JSON: the same
) WITHOUT ROWID;
)sql";

void insert_container(Db& db, const ContainerRow& row) {
  Stmt insert(db, "INSERT INTO containers (id, name, created_ns, config, state) VALUES (?, ?, ?, ?, ?)");
  insert.bind(1, row.id).bind(2, row.name).bind(3, row.created_ns).bind(4, row.config).bind(5, row.state).run();
}

void update_container(Db& db, const ContainerRow& row) {
  Stmt update(db, "UPDATE containers SET name = ?, config = ?, state = ? WHERE id = ?");
  update.bind(1, row.name).bind(2, row.config).bind(3, row.state).bind(4, row.id).run();
}

void update_container_state(Db& db, const std::string& id, const std::string& state) {
  Stmt update(db, "UPDATE containers SET state = ? WHERE id = ?");
  update.bind(1, state).bind(2, id).run();
}

void rename_container(Db& db, const std::string& id, const std::string& name) {
  Stmt update(db, "UPDATE containers SET name = ? WHERE id = ?");
  update.bind(1, name).bind(2, id).run();
}

void remove_container(Db& db, const std::string& id) {
  Stmt remove(db, "DELETE FROM containers WHERE id = ?");
  remove.bind(1, id).run();
}

std::vector<ContainerRow> load_containers(Db& db) {
  std::vector<ContainerRow> rows;
  Stmt select(db, "SELECT id, name, created_ns, config, state FROM containers ORDER BY created_ns");
  while (select.step())
    rows.push_back({select.text(0), select.text(1), select.integer(2), select.text(3), select.text(4)});
  return rows;
}

std::string get_meta(Db& db, const std::string& key) {
  Stmt select(db, "SELECT value FROM meta WHERE key = ?");
  select.bind(1, key);
  std::string value;
  while (select.step()) value = select.text(0);
  return value;
}

void set_meta(Db& db, const std::string& key, const std::string& value) {
  Stmt insert(db, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value");
  insert.bind(1, key).bind(2, value).run();
}

}  // namespace gantry::db
