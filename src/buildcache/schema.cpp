#include "buildcache/schema.hpp"

namespace gantry::buildcache {
namespace {

// Times are nanoseconds since 1970.
constexpr const char* kRecords = R"sql(
CREATE TABLE records (
  id          TEXT PRIMARY KEY,
  parent      TEXT NOT NULL,              -- records.id, layers.id, or empty
  state       TEXT NOT NULL,              -- making, ready, removing
  type        TEXT NOT NULL,              -- as docker buildx du names it
  description TEXT NOT NULL,
  created     INTEGER NOT NULL,
  last_used   INTEGER NOT NULL,
  uses        INTEGER NOT NULL DEFAULT 0,
  size        INTEGER NOT NULL DEFAULT 0, -- -1: to be counted
  mutable_key TEXT NOT NULL DEFAULT '',   -- what finds a directory that builds write to
  chain_id    TEXT NOT NULL DEFAULT '',   -- of a layer that the daemon holds for us
  diff_id     TEXT NOT NULL DEFAULT '',
  directory   TEXT NOT NULL DEFAULT '',   -- where the daemon has it
  settled     INTEGER NOT NULL DEFAULT 0, -- its files are on stable storage
  dirty       INTEGER NOT NULL DEFAULT 0  -- a mutable directory with digests is being written to
) STRICT;
CREATE INDEX records_by_parent ON records (parent);
CREATE INDEX records_by_key ON records (mutable_key) WHERE mutable_key <> '';
CREATE INDEX records_by_chain ON records (chain_id) WHERE chain_id <> '';
)sql";

// The layers of images that records stand on. The daemon owns them.
constexpr const char* kLayers = R"sql(
CREATE TABLE layers (
  id        TEXT PRIMARY KEY, -- layer-<hex of the chain id>
  parent    TEXT NOT NULL,    -- layers.id, or empty
  diff_id   TEXT NOT NULL,
  directory TEXT NOT NULL,
  size      INTEGER NOT NULL,
  created   INTEGER NOT NULL
) STRICT;
)sql";

constexpr const char* kKeys = R"sql(
CREATE TABLE keys (
  key    TEXT PRIMARY KEY,
  record TEXT REFERENCES records (id) ON DELETE CASCADE -- NULL: the empty tree
) STRICT;
CREATE INDEX keys_by_record ON keys (record);
CREATE TABLE links (
  source TEXT PRIMARY KEY,
  target TEXT NOT NULL
) STRICT;
CREATE TABLE digests (
  record TEXT NOT NULL, -- records.id or layers.id
  what   TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (record, what)
) STRICT;
CREATE TABLE facts (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
)sql";

}  // namespace

const std::vector<std::vector<const char*>>& cache_schema() {
  static const std::vector<std::vector<const char*>> steps{{kRecords, kLayers, kKeys}};
  return steps;
}

}  // namespace gantry::buildcache
