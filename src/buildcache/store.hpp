#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "buildcache/cache.hpp"
#include "db/sqlite.hpp"
#include "sys/fd.hpp"

/// What the parts of the cache share: the database, and who uses what. For this module only.
namespace gantry::buildcache {

/// A row of `records`.
struct Row {
  std::string id;
  std::string parent;  // a record, "layer-<hex>", or empty
  std::string state;   // making, ready, removing
  RecordType type = RecordType::regular;
  std::string description;
  Timestamp created;
  Timestamp last_used;
  std::int64_t uses = 0;
  std::int64_t size = 0;    // -1: to be counted
  std::string mutable_key;  // of a mutable directory
  std::string chain_id;     // of a layer that the daemon holds
  std::string diff_id;
  std::string directory;  // where the daemon has it
};

struct Directory {
  explicit Directory(sys::Path where) : path(std::move(where)) {}
  ~Directory();
  const sys::Path path;
  bool removed_at_end = false;  // under the mutex of the snapshot that had it, until nobody else has
};

/// A mount of a tree, or of a workspace.
class MountPoint {
 public:
  explicit MountPoint(sys::Path at) : path(std::move(at)) {}
  ~MountPoint();
  MountPoint(const MountPoint&) = delete;
  MountPoint& operator=(const MountPoint&) = delete;
  const sys::Path path;
  std::vector<DirectoryPtr> directories;  // what it stands on
};

struct Snapshot::State {
  mutable std::mutex mutex;
  std::condition_variable moved;
  bool moving = false;
  DirectoryPtr directory;
  std::int64_t size = 0;
  std::string chain_id;
  std::string diff_id;
  std::shared_ptr<void> lease;  // found later
  std::weak_ptr<MountPoint> view;
};

class Store {
 public:
  Store(sys::Path root, LayerHooks hooks);
  ~Store();

  const sys::Path& root() const noexcept { return root_; }
  const LayerHooks& hooks() const noexcept { return hooks_; }
  sys::Path tree(const std::string& id) const { return root_ / "trees" / id; }
  sys::Path diff(const std::string& id) const { return tree(id) / "diff"; }
  sys::Path empty() const { return root_ / "empty"; }
  sys::Path new_mount_point();
  /// Throws unavailable when the disk is nearly full.
  void require_space() const;

  /// Everything below is guarded by this, but for what says otherwise. Never held while calling hooks, and no
  /// SnapshotPtr may go while it is held.
  std::mutex mutex;
  /// A held directory was given back, or a new one is ready.
  std::condition_variable_any given_back;
  db::Db& db() noexcept { return *db_; }

  std::optional<Row> find_row(const std::string& id);
  std::vector<Row> rows();
  void insert_row(const Row& row);
  /// With its keys and digests.
  void delete_row(const std::string& id);
  void delete_digests(const std::string& id);
  bool has_children(const std::string& id);

  /// A user of a mutable directory: who destroys the last one frees it.
  class Hold {
   public:
    /// With the mutex. (Its end takes it.)
    Hold(Store& store, std::string id, bool exclusive);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    const std::string id;
    /// Set under the mutex.
    bool changed = false;
    bool frozen = false;
    bool detached = false;     // it became an ordinary record, which no key finds
    bool has_digests = false;  // its trees are known by digests, which must not survive a change

   private:
    Store& store_;
  };
  struct Users {
    unsigned count = 0;
    bool exclusive = false;
  };
  std::map<std::string, Users> held;      // mutable directories by record
  std::set<std::string> keys_being_made;  // of mutable directories
  std::set<std::string> touched;          // records that were written to since settle() began
  bool made_something = false;            // since the last collection

  /// Whether somebody holds the record's tree or directory.
  bool in_use(const std::string& id);
  /// Makes the tree known as a living object.
  void enlist(const SnapshotPtr& snapshot);

  /// The record's tree; nullptr if it is not complete any more. Takes the mutex itself.
  SnapshotPtr load(const std::string& id);
  SnapshotPtr adopt_image(const std::vector<ImageLayer>& layers, std::shared_ptr<void> lease);
  /// A tree of one record of our own, on `parent`.
  SnapshotPtr make_snapshot(const Row& row, SnapshotPtr parent, std::shared_ptr<void> hold);
  /// Writes down the image's layers below `snapshot`, so that what is made on them can be found by another worker.
  void remember_layers(const SnapshotPtr& snapshot);

  /// The directories of a tree, open, topmost first; waits for one that is being moved. Without the mutex.
  static std::vector<sys::Fd> open_directories(const SnapshotPtr& snapshot, std::vector<DirectoryPtr>& keep);
  /// Mounts a tree read-only, or finds it mounted. Without the mutex.
  std::shared_ptr<MountPoint> mount_view(const SnapshotPtr& snapshot);
  /// Makes ordinary records of the frozen directories that the tree stands on, because they are about to be kept.
  void detach_frozen(const SnapshotPtr& snapshot);
  /// Removes a record that nobody uses and no other stands on; false if it is not like that (any more).
  /// Without the mutex.
  bool remove_record(const std::string& id);
  void settle();
  /// Directories that no row knows, for somebody with time.
  std::vector<sys::Path> take_garbage();
  std::vector<std::string> check(bool repair);

 private:
  void recover();
  void forget_after_crash();
  void find_garbage();
  void drop_incomplete();
  void drop_orphans();
  void bound_tables();
  bool chain_rows(const std::string& id, std::vector<Row>& records, std::vector<ImageLayer>& layers);
  SnapshotPtr find_living(const std::string& id);

  const sys::Path root_;
  const LayerHooks hooks_;
  std::unique_ptr<db::Db> db_;
  std::unordered_map<std::string, std::weak_ptr<const Snapshot>> living_;
  std::size_t purge_at_ = 1024;
  std::uint64_t next_mount_ = 0;
  std::set<std::string> remembered_;  // layers whose rows are written
  std::vector<sys::Path> garbage_;
};

std::string new_record_id();
RecordType parse_record_type(std::string_view name);
inline std::int64_t to_nanoseconds(Timestamp t) { return t.time_since_epoch().count(); }
inline Timestamp from_nanoseconds(std::int64_t n) { return Timestamp(std::chrono::nanoseconds(n)); }
/// "layer-<hex>" of "sha256:<hex>".
std::string layer_record_id(const std::string& chain_id);

}  // namespace gantry::buildcache
