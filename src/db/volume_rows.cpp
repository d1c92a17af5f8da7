#include "db/volume_rows.hpp"

#include "base/error.hpp"
#include "json/codec.hpp"

namespace gantry::db {

extern const char* const kVolumeSchema;
const char* const kVolumeSchema = R"sql(
CREATE TABLE volumes (
  name       TEXT PRIMARY KEY,
  driver     TEXT NOT NULL,
  created_ns INTEGER NOT NULL,
  labels     TEXT NOT NULL,   -- JSON object of texts
  options    TEXT NOT NULL,   -- the same
  anonymous  INTEGER NOT NULL,
  populated  INTEGER NOT NULL,
  removing   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE volume_references (
  volume    TEXT NOT NULL,
  container TEXT NOT NULL,
  PRIMARY KEY (volume, container)
) WITHOUT ROWID;

CREATE INDEX volume_references_by_container ON volume_references (container);
)sql";

void insert_volume(Db& db, const VolumeRow& row) {
  Stmt insert(db,
              "INSERT INTO volumes (name, driver, created_ns, labels, options, anonymous, populated, removing) "
              "VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  insert.bind(1, row.name).bind(2, row.driver).bind(3, row.created_ns);
  insert.bind(4, json::encode_text(row.labels)).bind(5, json::encode_text(row.options));
  insert.bind(6, row.anonymous).bind(7, row.populated).bind(8, row.removing).run();
}

void set_volume_populated(Db& db, const std::string& name) {
  Stmt update(db, "UPDATE volumes SET populated = 1 WHERE name = ?");
  update.bind(1, name).run();
}

void set_volume_removing(Db& db, const std::string& name, bool removing) {
  Stmt update(db, "UPDATE volumes SET removing = ? WHERE name = ?");
  update.bind(1, removing).bind(2, name).run();
}

void remove_volume(Db& db, const std::string& name) {
  Tx tx(db);
  Stmt references(db, "DELETE FROM volume_references WHERE volume = ?");
  references.bind(1, name).run();
  Stmt remove(db, "DELETE FROM volumes WHERE name = ?");
  remove.bind(1, name).run();
  tx.commit();
}

std::vector<VolumeRow> load_volumes(Db& db) {
  std::vector<VolumeRow> rows;
  Stmt select(
      db,
      "SELECT name, driver, created_ns, labels, options, anonymous, populated, removing FROM volumes ORDER BY name");
  while (select.step()) {
    VolumeRow row;
    row.name = select.text(0);
    row.driver = select.text(1);
    row.created_ns = select.integer(2);
    row.anonymous = select.integer(5) != 0;
    row.populated = select.integer(6) != 0;
    row.removing = select.integer(7) != 0;
    try {
      row.labels = json::decode_text<std::map<std::string, std::string>>(select.text(3));
      row.options = json::decode_text<std::map<std::string, std::string>>(select.text(4));
    } catch (const Error& e) {
      row.damage = e.message();
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

void insert_volume_reference(Db& db, const VolumeReference& reference) {
  Stmt insert(db, "INSERT OR IGNORE INTO volume_references (volume, container) VALUES (?, ?)");
  insert.bind(1, reference.volume).bind(2, reference.container).run();
}

void remove_volume_reference(Db& db, const VolumeReference& reference) {
  Stmt remove(db, "DELETE FROM volume_references WHERE volume = ? AND container = ?");
  remove.bind(1, reference.volume).bind(2, reference.container).run();
}

void remove_volume_references_of(Db& db, const std::string& container) {
  Stmt remove(db, "DELETE FROM volume_references WHERE container = ?");
  remove.bind(1, container).run();
}

std::vector<VolumeReference> load_volume_references(Db& db) {
  std::vector<VolumeReference> references;
  Stmt select(db, "SELECT volume, container FROM volume_references ORDER BY volume, container");
  while (select.step()) references.push_back({select.text(0), select.text(1)});
  return references;
}

}  // namespace gantry::db
