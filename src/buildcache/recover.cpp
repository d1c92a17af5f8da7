#include <algorithm>
#include <string>
#include <unordered_set>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "buildcache/schema.hpp"
#include "buildcache/store.hpp"
#include "sys/file.hpp"

namespace gantry::buildcache {
namespace {

// What is known about layers of images and keys of the empty tree goes with no record, so it is bounded by number.
constexpr int kMostDigests = 20'000;
constexpr int kMostLinks = 50'000;
constexpr int kMostEmptyKeys = 10'000;

std::unique_ptr<db::Db> open_database(const sys::Path& file) {
  try {
    auto database = std::make_unique<db::Db>(file, cache_schema());
    // A lost commit is a lost result, which is made again.
    database->execute("PRAGMA synchronous = NORMAL");
    return database;
  } catch (const Error& e) {
    if (e.code() != Errc::corrupted) throw;
    const sys::Path aside = db::Db::quarantine(file);
    log::warning("build cache: {}; it is kept as {}, and the cache is empty now", e.what(), aside.string());
  }
  auto database = std::make_unique<db::Db>(file, cache_schema());
  database->execute("PRAGMA synchronous = NORMAL");
  return database;
}

std::string boot_id() {
  return std::string(trim(sys::try_read_small("/proc/sys/kernel/random/boot_id").value_or("unknown")));
}

}  // namespace

Store::Store(sys::Path root, LayerHooks hooks) : root_(std::move(root)), hooks_(std::move(hooks)) {
  sys::make_directories(root_, 0700);
  for (const char* name : {"trees", "mounts", "empty"}) sys::make_directories(root_ / name, 0700);
  if (::chmod(empty().c_str(), 0755) != 0) throw Error::from_errno(errno, "chmod");
  sys::spread_subdirectories(root_ / "trees");
  db_ = open_database(root_ / "cache.db");
  recover();
}

void Store::recover() {
  // Mounts went with the namespace of the worker that made them.
  for (const std::string& name : sys::list_directory(root_ / "mounts"))
    (void)::rmdir((root_ / "mounts" / name).c_str());
  forget_after_crash();
  db_->execute("DELETE FROM records WHERE state <> 'ready'");
  db_->execute("DELETE FROM digests WHERE record IN (SELECT id FROM records WHERE dirty = 1)");
  db_->execute("UPDATE records SET dirty = 0, size = -1 WHERE dirty = 1");
  drop_incomplete();
  bound_tables();
  find_garbage();
}

void Store::forget_after_crash() {
  const std::string boot = boot_id();
  db::Stmt find(*db_, "SELECT value FROM facts WHERE name = 'boot'");
  const std::string last = find.step() ? find.text(0) : boot;
  if (last != boot) {
    // The machine went down, and took with it what was not on the disk. What the daemon holds, it has put there.
    db_->execute("DELETE FROM digests WHERE record IN (SELECT id FROM records WHERE settled = 0 AND chain_id = '')");
    db_->execute("DELETE FROM records WHERE settled = 0 AND chain_id = ''");
    if (db_->changes() > 0)
      log::info("build cache: {} unfinished results were dropped after a restart", db_->changes());
  }
  db::Stmt(*db_, "INSERT OR REPLACE INTO facts (name, value) VALUES ('boot', ?)").bind(1, boot).run();
}

void Store::drop_incomplete() {
  for (const Row& row : rows()) {
    const sys::Path directory = row.directory.empty() ? diff(row.id) : sys::Path(row.directory);
    if (::access(directory.c_str(), F_OK) != 0) delete_row(row.id);
  }
  drop_orphans();
}

void Store::drop_orphans() {
  do {
    db_->execute(
        "DELETE FROM records WHERE parent <> '' AND parent NOT IN (SELECT id FROM records) "
        "AND parent NOT IN (SELECT id FROM layers)");
  } while (db_->changes() > 0);
}

void Store::bound_tables() {
  do {
    db_->execute(
        "DELETE FROM layers WHERE id NOT IN (SELECT parent FROM records) AND id NOT IN (SELECT parent FROM layers)");
  } while (db_->changes() > 0);
  db_->execute("DELETE FROM digests WHERE record NOT LIKE 'layer-%' AND record NOT IN (SELECT id FROM records)");
  const auto keep_newest = [&](const char* table, const char* which, int most) {
    db_->execute(fmt::format("DELETE FROM {0} WHERE {1} AND rowid NOT IN "
                             "(SELECT rowid FROM {0} WHERE {1} ORDER BY rowid DESC LIMIT {2})",
                             table, which, most)
                     .c_str());
  };
  keep_newest("digests", "record LIKE 'layer-%'", kMostDigests);
  keep_newest("links", "1", kMostLinks);
  keep_newest("keys", "record IS NULL", kMostEmptyKeys);
}

void Store::find_garbage() {
  std::unordered_set<std::string> known;
  for (const Row& row : rows()) known.insert(row.id);
  for (const std::string& name : sys::list_directory(root_ / "trees"))
    if (!known.contains(name)) garbage_.push_back(root_ / "trees" / name);
}

std::vector<std::string> Store::check(bool repair) {
  std::vector<std::string> found;
  const std::lock_guard lock(mutex);
  if (const std::string text = db_->check(); text != "ok") found.push_back("build cache: database: " + text);
  std::unordered_set<std::string> known;
  std::vector<std::string> lost;
  db::Stmt all(*db_, "SELECT id, directory FROM records WHERE state = 'ready'");
  while (all.step()) {
    const std::string id = all.text(0);
    known.insert(id);
    const sys::Path directory = all.text(1).empty() ? diff(id) : sys::Path(all.text(1));
    if (::access(directory.c_str(), F_OK) == 0) continue;
    found.push_back(fmt::format("build cache: record {} has lost its directory {}", id, directory.string()));
    if (!in_use(id)) lost.push_back(id);
  }
  db::Stmt unfinished(*db_, "SELECT id FROM records WHERE state <> 'ready'");
  while (unfinished.step()) known.insert(unfinished.text(0));  // being made or removed
  for (const std::string& name : sys::list_directory(root_ / "trees")) {
    if (known.contains(name)) continue;
    found.push_back(fmt::format("build cache: directory {} belongs to no record", (root_ / "trees" / name).string()));
    if (repair) garbage_.push_back(root_ / "trees" / name);
  }
  db::Stmt orphans(*db_,
                   "SELECT id FROM records WHERE parent <> '' AND parent NOT IN (SELECT id FROM records) AND "
                   "parent NOT IN (SELECT id FROM layers)");
  while (orphans.step()) found.push_back(fmt::format("build cache: record {} has lost its parent", orphans.text(0)));
  if (!repair) return found;
  for (const std::string& id : lost) {
    delete_row(id);
    garbage_.push_back(tree(id));
  }
  drop_orphans();
  return found;
}

}  // namespace gantry::buildcache
