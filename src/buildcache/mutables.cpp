#include "buildcache/mutables.hpp"

#include <utility>

#include <fcntl.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "buildcache/store.hpp"
#include "storage/root_access.hpp"

namespace gantry::buildcache {
namespace {

constexpr std::size_t kLongestKey = 4096;

class HeldDirectory final : public Mutable {
 public:
  HeldDirectory(Store& store, Row row, std::shared_ptr<Store::Hold> hold)
      : store_(store), row_(std::move(row)), hold_(std::move(hold)), path_(store.diff(row_.id)) {}

  const sys::Path& path() const override { return path_; }
  void mark_changed() override {
    const std::lock_guard lock(store_.mutex);
    hold_->changed = true;
  }
  SnapshotPtr freeze() override {
    const std::lock_guard lock(store_.mutex);
    if (hold_->changed) store_.delete_digests(row_.id);
    db::Stmt clean(store_.db(), "UPDATE records SET dirty = 0 WHERE id = ?");
    clean.bind(1, row_.id).run();
    hold_->frozen = true;
    return store_.make_snapshot(row_, nullptr, hold_);
  }

 private:
  Store& store_;
  const Row row_;
  const std::shared_ptr<Store::Hold> hold_;
  const sys::Path path_;
};

/// The directories of the key, and whether one of them may be had now.
struct Choice {
  std::optional<Row> row;
  bool exists = false;
};

Choice choose(Store& store, const std::string& key, Sharing sharing) {
  Choice choice;
  db::Stmt find(store.db(),
                "SELECT id FROM records WHERE mutable_key = ? AND state = 'ready' ORDER BY last_used DESC, id");
  find.bind(1, key);
  std::vector<std::string> ids;
  while (find.step()) ids.push_back(find.text(0));
  for (const std::string& id : ids) {
    choice.exists = true;
    const auto users = store.held.find(id);
    const bool free = users == store.held.end();
    if (!free && (sharing != Sharing::shared || users->second.exclusive)) continue;
    choice.row = store.find_row(id);
    return choice;
  }
  return choice;
}

std::shared_ptr<Store::Hold> take(Store& store, const Row& row, Sharing sharing) {
  auto hold = std::make_shared<Store::Hold>(store, row.id, sharing != Sharing::shared);
  hold->has_digests = row.type == RecordType::source_local || row.type == RecordType::source_git;
  db::Stmt use(store.db(), "UPDATE records SET last_used = ?, uses = uses + 1, settled = 0, dirty = ? WHERE id = ?");
  use.bind(1, to_nanoseconds(now())).bind(2, hold->has_digests).bind(3, row.id).run();
  store.touched.insert(row.id);
  return hold;
}

void copy_initial(Store& store, const SnapshotPtr& initial, const sys::Path& to) {
  Snapshots snapshots(store);
  const auto view = snapshots.view(initial);
  const sys::Fd from = sys::open_file(view->path(), O_RDONLY | O_DIRECTORY);
  const sys::Fd target = sys::open_file(to, O_RDONLY | O_DIRECTORY);
  storage::copy_directory_preserving(from.get(), "/", target.get());
}

/// Makes the first directory of a key, or another one. The key is reserved in `keys_being_made`.
Row make_directory(Store& store, const MutableRequest& request, const std::string& key) {
  Row row;
  row.id = new_record_id();
  row.state = "making";
  row.type = request.type;
  row.description = request.description;
  row.created = row.last_used = now();
  row.size = -1;
  row.mutable_key = key;
  {
    const std::lock_guard lock(store.mutex);
    store.insert_row(row);
  }
  FAILPOINT("buildcache.mutable.after_row");
  try {
    sys::make_directories(store.diff(row.id), 0755);
    if (request.initial) copy_initial(store, request.initial, store.diff(row.id));
  } catch (...) {
    sys::remove_tree(store.tree(row.id));
    const std::lock_guard lock(store.mutex);
    store.delete_row(row.id);
    throw;
  }
  return row;
}

class KeyReservation {
 public:
  KeyReservation(Store& store, std::string key) : store_(store), key_(std::move(key)) {}
  ~KeyReservation() {
    const std::lock_guard lock(store_.mutex);
    store_.keys_being_made.erase(key_);
    store_.given_back.notify_all();
  }
  KeyReservation(const KeyReservation&) = delete;
  KeyReservation& operator=(const KeyReservation&) = delete;

 private:
  Store& store_;
  const std::string key_;
};

}  // namespace

std::unique_ptr<Mutable> Mutables::acquire(MutableRequest request, std::stop_token stop) {
  if (request.key.empty() || request.key.size() > kLongestKey)
    throw Error(Errc::invalid_argument, fmt::format("a cache id has 1 to {} bytes", kLongestKey));
  std::string key = request.key;
  if (request.initial) key += '\n' + request.initial->id();
  store_.require_space();
  {
    std::unique_lock lock(store_.mutex);
    Choice choice;
    const auto decided = [&] {
      // Who shares waits for the first directory instead of making a second one.
      if (request.sharing != Sharing::private_copy && store_.keys_being_made.contains(key)) return false;
      choice = choose(store_, key, request.sharing);
      return choice.row || !choice.exists || request.sharing != Sharing::locked;
    };
    if (!store_.given_back.wait(lock, stop, decided)) throw Error(Errc::cancelled, "context canceled");
    if (choice.row) {
      auto hold = take(store_, *choice.row, request.sharing);
      lock.unlock();
      return std::make_unique<HeldDirectory>(store_, std::move(*choice.row), std::move(hold));
    }
    if (request.sharing != Sharing::private_copy) store_.keys_being_made.insert(key);
  }
  std::optional<KeyReservation> reservation;
  if (request.sharing != Sharing::private_copy) reservation.emplace(store_, key);
  Row row = make_directory(store_, request, key);
  std::shared_ptr<Store::Hold> hold;
  {
    const std::lock_guard lock(store_.mutex);
    db::Stmt done(store_.db(), "UPDATE records SET state = 'ready' WHERE id = ?");
    done.bind(1, row.id).run();
    hold = take(store_, row, request.sharing);
  }
  FAILPOINT("buildcache.mutable.after_ready");
  return std::make_unique<HeldDirectory>(store_, std::move(row), std::move(hold));
}

}  // namespace gantry::buildcache
