#include "buildcache/store.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "sys/file.hpp"
#include "sys/mount.hpp"

namespace gantry::buildcache {
namespace {

constexpr const char* kColumns =
    "id, parent, state, type, description, created, last_used, uses, size, mutable_key, chain_id, diff_id, directory";
constexpr std::string_view kLayerPrefix = "layer-";

Row read_row(const db::Stmt& at) {
  Row row;
  row.id = at.text(0);
  row.parent = at.text(1);
  row.state = at.text(2);
  row.type = parse_record_type(at.text(3));
  row.description = at.text(4);
  row.created = from_nanoseconds(at.integer(5));
  row.last_used = from_nanoseconds(at.integer(6));
  row.uses = at.integer(7);
  row.size = at.integer(8);
  row.mutable_key = at.text(9);
  row.chain_id = at.text(10);
  row.diff_id = at.text(11);
  row.directory = at.text(12);
  return row;
}

bool is_there(const sys::Path& path) { return ::access(path.c_str(), X_OK) == 0; }

}  // namespace

std::string new_record_id() { return random_id().substr(0, 25); }

std::string layer_record_id(const std::string& chain_id) {
  return std::string(kLayerPrefix) + std::string(split_once(chain_id, ':').second);
}

std::string_view record_type_name(RecordType type) {
  switch (type) {
    case RecordType::regular: return "regular";
    case RecordType::source_local: return "source.local";
    case RecordType::source_git: return "source.git.checkout";
    case RecordType::exec_cachemount: return "exec.cachemount";
    case RecordType::frontend: return "frontend";
    case RecordType::internal: return "internal";
  }
  return "regular";
}

RecordType parse_record_type(std::string_view name) {
  for (const RecordType type : {RecordType::source_local, RecordType::source_git, RecordType::exec_cachemount,
                                RecordType::frontend, RecordType::internal})
    if (record_type_name(type) == name) return type;
  return RecordType::regular;
}

Directory::~Directory() {
  if (!removed_at_end) return;
  try {
    sys::remove_tree(path);
  } catch (const Error& e) {
    log::debug("removing {}: {}", path.string(), e.what());  // the next start finds it
  }
}

MountPoint::~MountPoint() {
  try {
    sys::unmount(path, sys::Unmount::lazy);
  } catch (const Error& e) {
    log::debug("unmounting {}: {}", path.string(), e.what());
  }
  (void)::rmdir(path.c_str());
}

Store::Hold::Hold(Store& store, std::string id, bool exclusive) : id(std::move(id)), store_(store) {
  Users& users = store_.held[this->id];
  ++users.count;
  users.exclusive = exclusive;
}

Store::Hold::~Hold() {
  const std::lock_guard lock(store_.mutex);
  const auto it = store_.held.find(id);
  if (it != store_.held.end() && --it->second.count == 0) store_.held.erase(it);
  store_.given_back.notify_all();
  if (detached) return;
  try {
    // A transfer that did not come to its end may have changed anything.
    const bool stale = has_digests && !frozen;
    if (stale) store_.delete_digests(id);
    db::Stmt end(store_.db(), "UPDATE records SET last_used = ?, dirty = 0, size = iif(?, -1, size) WHERE id = ?");
    end.bind(1, to_nanoseconds(now())).bind(2, changed || !has_digests).bind(3, id).run();
  } catch (const Error& e) {
    log::warning("build cache: {}", e.what());
  }
}

Store::~Store() = default;

sys::Path Store::new_mount_point() {
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex);
    number = next_mount_++;
  }
  sys::Path path = root_ / "mounts" / std::to_string(number);
  sys::make_directories(path, 0700);
  return path;
}

void Store::require_space() const {
  struct statvfs st{};
  if (::statvfs(root_.c_str(), &st) != 0) throw Error::from_errno(errno, "statvfs");
  const std::uint64_t all = std::uint64_t{st.f_blocks} * st.f_frsize;
  const std::uint64_t left = std::uint64_t{st.f_bavail} * st.f_frsize;
  if (left < std::min<std::uint64_t>(all / 50, 256 << 20))
    throw Error(Errc::unavailable,
                fmt::format("no space left for the build: {} are free; remove something (docker builder prune) or "
                            "enlarge the disk of --data-root",
                            render_human_size(static_cast<std::int64_t>(left))));
}

std::optional<Row> Store::find_row(const std::string& id) {
  db::Stmt find(*db_, fmt::format("SELECT {} FROM records WHERE id = ?", kColumns));
  find.bind(1, id);
  if (!find.step()) return std::nullopt;
  return read_row(find);
}

std::vector<Row> Store::rows() {
  std::vector<Row> out;
  db::Stmt all(*db_, fmt::format("SELECT {} FROM records WHERE state = 'ready' ORDER BY created, id", kColumns));
  while (all.step()) out.push_back(read_row(all));
  return out;
}

void Store::insert_row(const Row& row) {
  db::Stmt insert(*db_, fmt::format("INSERT INTO records ({}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", kColumns));
  insert.bind(1, row.id).bind(2, row.parent).bind(3, row.state).bind(4, record_type_name(row.type));
  insert.bind(5, row.description).bind(6, to_nanoseconds(row.created)).bind(7, to_nanoseconds(row.last_used));
  insert.bind(8, row.uses).bind(9, row.size).bind(10, row.mutable_key).bind(11, row.chain_id);
  insert.bind(12, row.diff_id).bind(13, row.directory).run();
  made_something = true;
}

void Store::delete_digests(const std::string& id) {
  db::Stmt(*db_, "DELETE FROM digests WHERE record = ?").bind(1, id).run();
}

void Store::delete_row(const std::string& id) {
  db::Tx tx(*db_);
  delete_digests(id);
  db::Stmt(*db_, "DELETE FROM records WHERE id = ?").bind(1, id).run();
  tx.commit();
}

bool Store::has_children(const std::string& id) {
  db::Stmt find(*db_, "SELECT 1 FROM records WHERE parent = ? LIMIT 1");
  return find.bind(1, id).step();
}

bool Store::in_use(const std::string& id) {
  const auto it = living_.find(id);
  return held.contains(id) || (it != living_.end() && !it->second.expired());
}

void Store::enlist(const SnapshotPtr& snapshot) {
  living_[snapshot->id()] = snapshot;
  if (living_.size() < purge_at_) return;
  std::erase_if(living_, [](const auto& entry) { return entry.second.expired(); });
  purge_at_ = std::max<std::size_t>(1024, 2 * living_.size());
}

SnapshotPtr Store::find_living(const std::string& id) {
  const auto it = living_.find(id);
  return it == living_.end() ? nullptr : it->second.lock();
}

/// Follows the parents of a record. False if one is missing or not complete.
bool Store::chain_rows(const std::string& id, std::vector<Row>& records, std::vector<ImageLayer>& layers) {
  std::string next = id;
  while (!next.empty() && !next.starts_with(kLayerPrefix)) {
    auto row = find_row(next);
    if (!row || row->state != "ready" || !row->mutable_key.empty()) return false;
    next = row->parent;
    records.push_back(std::move(*row));
  }
  while (!next.empty()) {
    db::Stmt find(*db_, "SELECT parent, diff_id, directory, size, created FROM layers WHERE id = ?");
    find.bind(1, next);
    if (!find.step()) return false;
    layers.push_back({"sha256:" + next.substr(kLayerPrefix.size()), find.text(1), find.text(2), find.integer(3),
                      from_nanoseconds(find.integer(4))});
    next = find.text(0);
  }
  std::reverse(records.begin(), records.end());
  std::reverse(layers.begin(), layers.end());
  return true;
}

SnapshotPtr Store::load(const std::string& id) {
  std::vector<Row> records;
  std::vector<ImageLayer> layers;
  SnapshotPtr living;
  {
    const std::lock_guard lock(mutex);
    living = find_living(id);
    if (!living && !chain_rows(id, records, layers)) return nullptr;
  }
  if (living) return living->mutable_ ? nullptr : living;
  std::shared_ptr<void> lease;
  if (!layers.empty() && hooks_.hold) {
    lease = hooks_.hold(layers.back().chain_id);
    if (!lease) return nullptr;
  }
  for (const ImageLayer& layer : layers)
    if (!is_there(layer.directory)) return nullptr;
  for (const Row& row : records)
    if (!is_there(row.directory.empty() ? diff(row.id) : sys::Path(row.directory))) return nullptr;

  std::vector<SnapshotPtr> made{adopt_image(layers, std::move(lease))};  // outlives the lock
  const std::lock_guard lock(mutex);
  for (const Row& row : records) {
    if (SnapshotPtr found = find_living(row.id)) {
      made.push_back(std::move(found));
      continue;
    }
    // The daemon may have taken it, or a prune removed it, since it was read.
    const auto current = find_row(row.id);
    if (!current || current->state != "ready") return nullptr;
    made.push_back(make_snapshot(*current, made.back(), nullptr));
  }
  return made.back();
}

SnapshotPtr Store::make_snapshot(const Row& row, SnapshotPtr parent, std::shared_ptr<void> hold) {
  std::shared_ptr<Snapshot> snapshot(new Snapshot);
  snapshot->id_ = row.id;
  snapshot->depth_ = parent ? parent->depth() + 1 : 1;
  snapshot->parent_ = std::move(parent);
  snapshot->created_ = row.created;
  snapshot->description_ = row.description;
  snapshot->type_ = row.type;
  snapshot->mutable_ = std::move(hold);
  snapshot->state_ = std::make_unique<Snapshot::State>();
  snapshot->state_->directory =
      std::make_shared<Directory>(row.directory.empty() ? diff(row.id) : sys::Path(row.directory));
  snapshot->state_->size = row.size;
  snapshot->state_->chain_id = row.chain_id;
  snapshot->state_->diff_id = row.diff_id;
  enlist(snapshot);
  return snapshot;
}

SnapshotPtr Store::adopt_image(const std::vector<ImageLayer>& layers, std::shared_ptr<void> lease) {
  SnapshotPtr top;
  for (const ImageLayer& layer : layers) {
    const std::string id = layer_record_id(layer.chain_id);
    SnapshotPtr found;
    {
      const std::lock_guard lock(mutex);
      found = find_living(id);
    }
    if (found) {
      const std::lock_guard lock(found->state_->mutex);
      if (!found->lease_ && !found->state_->lease) found->state_->lease = lease;
      top = found;
      continue;
    }
    std::shared_ptr<Snapshot> snapshot(new Snapshot);
    snapshot->id_ = id;
    snapshot->depth_ = top ? top->depth() + 1 : 1;
    snapshot->parent_ = top;
    snapshot->created_ = layer.created;
    snapshot->description_ = "layer of an image";
    snapshot->image_layer_ = true;
    snapshot->lease_ = lease;
    snapshot->state_ = std::make_unique<Snapshot::State>();
    snapshot->state_->directory = std::make_shared<Directory>(layer.directory);
    snapshot->state_->size = layer.size;
    snapshot->state_->chain_id = layer.chain_id;
    snapshot->state_->diff_id = layer.diff_id;
    top = snapshot;
    const std::lock_guard lock(mutex);
    enlist(top);
  }
  return top;
}

void Store::remember_layers(const SnapshotPtr& snapshot) {
  const Snapshot* at = snapshot.get();
  while (at != nullptr && !at->is_image_layer()) at = at->parent().get();
  if (at == nullptr) return;
  const std::lock_guard lock(mutex);
  if (remembered_.contains(at->id())) return;
  db::Tx tx(*db_);
  for (const Snapshot* layer = at; layer != nullptr; layer = layer->parent().get()) {
    db::Stmt put(*db_,
                 "INSERT OR REPLACE INTO layers (id, parent, diff_id, directory, size, created) "
                 "VALUES (?,?,?,?,?,?)");
    put.bind(1, layer->id()).bind(2, layer->parent() ? layer->parent()->id() : std::string());
    put.bind(3, layer->diff_id()).bind(4, layer->directory().string()).bind(5, layer->size());
    put.bind(6, to_nanoseconds(layer->created())).run();
  }
  tx.commit();
  if (remembered_.size() > 1024) remembered_.clear();
  remembered_.insert(at->id());
}

std::vector<sys::Fd> Store::open_directories(const SnapshotPtr& snapshot, std::vector<DirectoryPtr>& keep) {
  std::vector<sys::Fd> out;
  for (const Snapshot* at = snapshot.get(); at != nullptr; at = at->parent().get()) {
    for (;;) {
      DirectoryPtr directory;
      {
        const std::lock_guard lock(at->state_->mutex);
        directory = at->state_->directory;
      }
      sys::Fd fd(::open(directory->path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (fd) {
        out.push_back(std::move(fd));
        keep.push_back(std::move(directory));
        break;
      }
      const int err = errno;
      std::unique_lock lock(at->state_->mutex);
      const bool moves = at->state_->moving || at->state_->directory != directory;
      if (err != ENOENT || !moves)
        throw Error(Errc::corrupted, fmt::format("layer {} of the build cache is not where it was: {}", at->id(),
                                                 Error::from_errno(err, directory->path.string()).message()));
      at->state_->moved.wait(lock, [&] { return !at->state_->moving; });
    }
  }
  return out;
}

std::shared_ptr<MountPoint> Store::mount_view(const SnapshotPtr& snapshot) {
  {
    const std::lock_guard lock(snapshot->state_->mutex);
    if (auto mounted = snapshot->state_->view.lock()) return mounted;
  }
  auto point = std::make_shared<MountPoint>(new_mount_point());
  const std::vector<sys::Fd> directories = open_directories(snapshot, point->directories);
  sys::OverlaySpec spec;
  for (const sys::Fd& fd : directories) spec.lower.push_back(fmt::format("/proc/self/fd/{}", fd.get()));
  if (spec.lower.size() == 1) spec.lower.push_back(empty());
  sys::mount_overlay(spec, point->path);
  const std::lock_guard lock(snapshot->state_->mutex);
  snapshot->state_->view = point;
  return point;
}

void Store::detach_frozen(const SnapshotPtr& snapshot) {
  for (const Snapshot* at = snapshot.get(); at != nullptr; at = at->parent().get()) {
    if (!at->mutable_) continue;
    const std::lock_guard lock(mutex);
    auto* hold = static_cast<Hold*>(at->mutable_.get());
    if (std::exchange(hold->detached, true)) continue;
    db::Stmt keep(*db_, "UPDATE records SET mutable_key = '', dirty = 0, size = -1 WHERE id = ?");
    keep.bind(1, at->id()).run();
  }
}

bool Store::remove_record(const std::string& id) {
  std::string chain;
  {
    const std::lock_guard lock(mutex);
    const auto row = find_row(id);
    if (!row || row->state != "ready" || in_use(id) || has_children(id)) return false;
    db::Tx tx(*db_);
    db::Stmt(*db_, "UPDATE records SET state = 'removing' WHERE id = ?").bind(1, id).run();
    db::Stmt(*db_, "DELETE FROM keys WHERE record = ?").bind(1, id).run();
    tx.commit();
    living_.erase(id);
    db::Stmt twin(*db_, "SELECT 1 FROM records WHERE chain_id = ? AND id <> ? AND state = 'ready' LIMIT 1");
    if (!row->chain_id.empty() && !twin.bind(1, row->chain_id).bind(2, id).step()) chain = row->chain_id;
  }
  FAILPOINT("buildcache.remove.after_row");
  sys::remove_tree(tree(id));
  FAILPOINT("buildcache.remove.after_tree");
  if (!chain.empty() && hooks_.release) hooks_.release(chain);
  const std::lock_guard lock(mutex);
  delete_row(id);
  return true;
}

void Store::settle() {
  std::vector<std::string> ids;
  {
    const std::lock_guard lock(mutex);
    touched.clear();
    db::Stmt find(*db_, "SELECT id FROM records WHERE settled = 0 AND state = 'ready'");
    while (find.step())
      if (std::string id = find.text(0); !held.contains(id)) ids.push_back(std::move(id));
  }
  if (ids.empty()) return;
  const sys::Fd directory = sys::open_file(root_, O_RDONLY | O_DIRECTORY);
  if (::syncfs(directory.get()) != 0) throw Error::from_errno(errno, "write the build cache to disk");
  const std::lock_guard lock(mutex);
  db::Tx tx(*db_);
  db::Stmt set(*db_, "UPDATE records SET settled = 1 WHERE id = ?");
  for (const std::string& id : ids)
    if (!touched.contains(id)) set.bind(1, id).run();
  tx.commit();
}

std::vector<sys::Path> Store::take_garbage() {
  const std::lock_guard lock(mutex);
  return std::exchange(garbage_, {});
}

}  // namespace gantry::buildcache
