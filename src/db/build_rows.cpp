#include "db/build_rows.hpp"

#include "db/sqlite.hpp"

namespace gantry::db {

const char* const kBuildSchema = R"sql(
CREATE TABLE build_layers (
  chain_id    TEXT PRIMARY KEY,
  blob_digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
)sql";

std::vector<BuildLayerRow> list_build_layers(Db& db) {
  std::vector<BuildLayerRow> rows;
  Stmt all(db, "SELECT chain_id, blob_digest FROM build_layers");
  while (all.step()) rows.push_back({all.text(0), all.text(1)});
  return rows;
}

void save_build_layer(Db& db, const BuildLayerRow& row) {
  Stmt save(db, "INSERT OR REPLACE INTO build_layers (chain_id, blob_digest) VALUES (?, ?)");
  save.bind(1, row.chain_id).bind(2, row.blob_digest).run();
}

void remove_build_layer(Db& db, const std::string& chain_id) {
  Stmt(db, "DELETE FROM build_layers WHERE chain_id = ?").bind(1, chain_id).run();
}

}  // namespace gantry::db
