#include "db/image_rows.hpp"

#include "db/sqlite.hpp"

namespace gantry::db {

const char* const kImageSchema = R"sql(
CREATE TABLE blobs (
  digest TEXT PRIMARY KEY,            -- "sha256:…"; the file is content/blobs/sha256/<hex>
  size INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE images (
  id TEXT PRIMARY KEY,                -- digest of the index or manifest, which is a blob
  media_type TEXT NOT NULL,
  size INTEGER NOT NULL,              -- of that blob
  added INTEGER NOT NULL,             -- nanoseconds since 1970
  last_tagged INTEGER NOT NULL        -- likewise; 0: never tagged here
) WITHOUT ROWID;

CREATE TABLE image_manifests (        -- the platforms whose content is here
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  media_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (image, digest)
) WITHOUT ROWID;

CREATE TABLE image_names (
  name TEXT PRIMARY KEY,              -- canonical, with a tag or a digest
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX image_names_by_image ON image_names(image);

CREATE TABLE blob_sources (           -- repositories known to hold a blob: cross-repository mounts on push
  digest TEXT NOT NULL,
  repository TEXT NOT NULL,
  PRIMARY KEY (digest, repository)
) WITHOUT ROWID;
)sql";

namespace {

std::int64_t to_integer(Timestamp t) { return t.time_since_epoch().count(); }
Timestamp to_time(std::int64_t nanoseconds) { return Timestamp(std::chrono::nanoseconds(nanoseconds)); }

void put_name(Db& db, const std::string& name, const std::string& image) {
  Stmt put(db,
           "INSERT INTO image_names(name, image) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET image = excluded.image");
  put.bind(1, name).bind(2, image).run();
}

}  // namespace

std::vector<BlobRow> list_blobs(Db& db) {
  std::vector<BlobRow> out;
  Stmt all(db, "SELECT digest, size FROM blobs");
  while (all.step()) out.push_back({all.text(0), all.integer(1)});
  return out;
}

void save_blobs(Db& db, const std::vector<BlobRow>& rows) {
  Tx tx(db);
  Stmt put(db, "INSERT INTO blobs(digest, size) VALUES(?, ?) ON CONFLICT(digest) DO UPDATE SET size = excluded.size");
  for (const BlobRow& row : rows) put.bind(1, row.digest).bind(2, row.size).run();
  tx.commit();
}

void remove_blob_row(Db& db, const std::string& digest) {
  Stmt(db, "DELETE FROM blobs WHERE digest = ?").bind(1, digest).run();
}

std::vector<ImageRow> list_images(Db& db) {
  std::vector<ImageRow> out;
  Stmt all(db, "SELECT id, media_type, size, added, last_tagged FROM images");
  while (all.step())
    out.push_back({all.text(0), all.text(1), all.integer(2), to_time(all.integer(3)), to_time(all.integer(4))});
  return out;
}

std::vector<ImageManifestRow> list_image_manifests(Db& db) {
  std::vector<ImageManifestRow> out;
  Stmt all(db, "SELECT image, digest, media_type, size FROM image_manifests");
  while (all.step()) out.push_back({all.text(0), all.text(1), all.text(2), all.integer(3)});
  return out;
}

std::vector<ImageNameRow> list_image_names(Db& db) {
  std::vector<ImageNameRow> out;
  Stmt all(db, "SELECT name, image FROM image_names");
  while (all.step()) out.push_back({all.text(0), all.text(1)});
  return out;
}

std::vector<BlobSourceRow> list_blob_sources(Db& db) {
  std::vector<BlobSourceRow> out;
  Stmt all(db, "SELECT digest, repository FROM blob_sources");
  while (all.step()) out.push_back({all.text(0), all.text(1)});
  return out;
}

void save_image(Db& db, const ImageRow& image, const std::vector<ImageManifestRow>& manifests,
                const std::vector<std::string>& names, const std::vector<BlobSourceRow>& sources) {
  Tx tx(db);
  Stmt(db,
       "INSERT INTO images(id, media_type, size, added, last_tagged) VALUES(?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE "
       "SET "
       "media_type = excluded.media_type, size = excluded.size, last_tagged = excluded.last_tagged")
      .bind(1, image.id)
      .bind(2, image.media_type)
      .bind(3, image.size)
      .bind(4, to_integer(image.added))
      .bind(5, to_integer(image.last_tagged))
      .run();
  Stmt manifest(db, "INSERT OR IGNORE INTO image_manifests(image, digest, media_type, size) VALUES(?, ?, ?, ?)");
  for (const ImageManifestRow& m : manifests)
    manifest.bind(1, m.image).bind(2, m.digest).bind(3, m.media_type).bind(4, m.size).run();
  for (const std::string& name : names) put_name(db, name, image.id);
  Stmt source(db, "INSERT OR IGNORE INTO blob_sources(digest, repository) VALUES(?, ?)");
  for (const BlobSourceRow& s : sources) source.bind(1, s.digest).bind(2, s.repository).run();
  tx.commit();
}

void save_image_name(Db& db, const ImageNameRow& row, Timestamp tagged) {
  Tx tx(db);
  put_name(db, row.name, row.image);
  Stmt(db, "UPDATE images SET last_tagged = ? WHERE id = ?").bind(1, to_integer(tagged)).bind(2, row.image).run();
  tx.commit();
}

void remove_images(Db& db, const ImageRemoval& removal) {
  const auto remove = [&db](const char* sql, const std::vector<std::string>& keys) {
    Stmt each(db, sql);
    for (const std::string& key : keys) each.bind(1, key).run();
  };
  Tx tx(db);
  remove("DELETE FROM image_names WHERE name = ?", removal.names);
  remove("DELETE FROM image_names WHERE image = ?", removal.images);
  remove("DELETE FROM image_manifests WHERE image = ?", removal.images);
  remove("DELETE FROM images WHERE id = ?", removal.images);
  Stmt manifest(db, "DELETE FROM image_manifests WHERE image = ? AND digest = ?");
  for (const ImageManifestRow& row : removal.manifests) manifest.bind(1, row.image).bind(2, row.digest).run();
  remove("DELETE FROM layers WHERE chain_id = ?", removal.layers);
  remove("DELETE FROM blobs WHERE digest = ?", removal.blobs);
  remove("DELETE FROM blob_sources WHERE digest = ?", removal.blobs);
  tx.commit();
}

}  // namespace gantry::db
