#include "buildcache/index.hpp"

#include <utility>

#include "buildcache/store.hpp"

namespace gantry::buildcache {

std::optional<SnapshotPtr> CacheIndex::find(std::string_view key) {
  std::string id;
  {
    const std::lock_guard lock(store_.mutex);
    db::Stmt find(store_.db(), "SELECT record FROM keys WHERE key = ?");
    if (!find.bind(1, key).step()) return std::nullopt;
    if (find.is_null(0)) return SnapshotPtr();
    id = find.text(0);
  }
  SnapshotPtr found = store_.load(id);
  if (!found) return std::nullopt;
  const std::lock_guard lock(store_.mutex);
  db::Stmt use(store_.db(), "UPDATE records SET last_used = ?, uses = uses + 1 WHERE id = ?");
  use.bind(1, to_nanoseconds(now())).bind(2, id).run();
  return found;
}

void CacheIndex::store(std::string_view key, const SnapshotPtr& result) {
  if (result && result->is_image_layer()) return;  // the daemon's: nothing of ours to find again
  store_.detach_frozen(result);
  const std::lock_guard lock(store_.mutex);
  db::Stmt put(store_.db(), "INSERT OR REPLACE INTO keys (key, record) VALUES (?, ?)");
  put.bind(1, key);
  if (result) put.bind(2, result->id());
  else put.bind_null(2);
  put.run();
}

void CacheIndex::link(std::string_view from, std::string_view to) {
  const std::lock_guard lock(store_.mutex);
  db::Stmt(store_.db(), "INSERT OR REPLACE INTO links (source, target) VALUES (?, ?)").bind(1, from).bind(2, to).run();
}

std::optional<std::string> CacheIndex::find_link(std::string_view from) {
  const std::lock_guard lock(store_.mutex);
  db::Stmt find(store_.db(), "SELECT target FROM links WHERE source = ?");
  if (!find.bind(1, from).step()) return std::nullopt;
  return find.text(0);
}

std::optional<std::string> CacheIndex::find_digest(const SnapshotPtr& snapshot, std::string_view what) {
  const std::lock_guard lock(store_.mutex);
  db::Stmt find(store_.db(), "SELECT digest FROM digests WHERE record = ? AND what = ?");
  if (!find.bind(1, snapshot->id()).bind(2, what).step()) return std::nullopt;
  return find.text(0);
}

void CacheIndex::store_digest(const SnapshotPtr& snapshot, std::string_view what, std::string_view digest) {
  const std::lock_guard lock(store_.mutex);
  db::Stmt put(store_.db(), "INSERT OR REPLACE INTO digests (record, what, digest) VALUES (?, ?, ?)");
  put.bind(1, snapshot->id()).bind(2, what).bind(3, digest).run();
}

sys::Path CacheIndex::notes_file(const SnapshotPtr& snapshot) {
  if (snapshot->type() != RecordType::source_local) return {};
  return store_.tree(snapshot->id()) / "notes";
}

}  // namespace gantry::buildcache
