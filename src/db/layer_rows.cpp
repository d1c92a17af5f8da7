#include "db/layer_rows.hpp"

#include "db/sqlite.hpp"

namespace gantry::db {

const char* const kLayerSchema = R"sql(
CREATE TABLE layers (
  chain_id    TEXT PRIMARY KEY,
  parent      TEXT NOT NULL,     -- chain id of the layer below, '' for the lowest
  diff_id     TEXT NOT NULL,
  blob_digest TEXT NOT NULL,     -- what it is rebuilt from, '' if nothing is kept
  size        INTEGER NOT NULL,  -- bytes of file content
  entries     INTEGER NOT NULL,
  created     INTEGER NOT NULL,  -- nanoseconds since 1970
  state       TEXT NOT NULL      -- ready, missing
) STRICT, WITHOUT ROWID;
)sql";

const char* const kLayerFingerprint = R"sql(
ALTER TABLE layers ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';  -- storage::fingerprint_tree of the directory
)sql";

std::vector<LayerRow> list_layers(Db& db) {
  std::vector<LayerRow> rows;
  Stmt all(db, "SELECT chain_id, parent, diff_id, blob_digest, size, entries, created, state, fingerprint FROM layers");
  while (all.step()) {
    LayerRow row;
    row.chain_id = all.text(0);
    row.parent = all.text(1);
    row.diff_id = all.text(2);
    row.blob_digest = all.text(3);
    row.size = all.integer(4);
    row.entries = all.integer(5);
    row.created = Timestamp(std::chrono::nanoseconds(all.integer(6)));
    row.state = all.text(7) == "ready" ? LayerState::ready : LayerState::missing;
    row.fingerprint = all.text(8);
    rows.push_back(std::move(row));
  }
  return rows;
}

void save_layer(Db& db, const LayerRow& row) {
  Stmt save(db,
            "INSERT OR REPLACE INTO layers (chain_id, parent, diff_id, blob_digest, size, entries, created, state, "
            "fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
  save.bind(1, row.chain_id).bind(2, row.parent).bind(3, row.diff_id).bind(4, row.blob_digest);
  save.bind(5, row.size).bind(6, row.entries);
  save.bind(7, static_cast<std::int64_t>(row.created.time_since_epoch().count()));
  save.bind(8, row.state == LayerState::ready ? "ready" : "missing").bind(9, row.fingerprint);
  save.run();
}

void remove_layer(Db& db, const std::string& chain_id) {
  Stmt(db, "DELETE FROM layers WHERE chain_id = ?").bind(1, chain_id).run();
}

}  // namespace gantry::db
