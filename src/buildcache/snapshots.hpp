#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"
#include "sys/file.hpp"

/// The build cache: the trees that build steps made, what finds them again, and the directories that builds keep
/// (cache mounts, copies of contexts). Everything blocks, may be called from any thread, and throws Error.
namespace gantry::buildcache {

class Store;

/// What a record holds, in the words of `docker buildx du`.
enum class RecordType { regular, source_local, source_git, exec_cachemount, frontend, internal };
/// "regular", "source.local", "source.git.checkout", "exec.cachemount", "frontend", "internal".
std::string_view record_type_name(RecordType type);

class Snapshot;
/// nullptr stands for scratch, the empty tree. Holding one keeps the record, and all below it, from being pruned.
using SnapshotPtr = std::shared_ptr<const Snapshot>;

/// A directory that is a layer of a tree. The last user of one that is to go removes it.
struct Directory;
using DirectoryPtr = std::shared_ptr<Directory>;

/// An immutable tree: a layer on top of its parent.
class Snapshot {
 public:
  ~Snapshot();
  /// 25 characters of [a-z0-9]; of a layer of an image "layer-" and the digits of its chain id.
  const std::string& id() const noexcept { return id_; }
  const SnapshotPtr& parent() const noexcept { return parent_; }
  /// How many layers it has, at least 1.
  std::size_t depth() const noexcept { return depth_; }
  /// When its content was first made: this goes into the history of images.
  Timestamp created() const noexcept { return created_; }
  const std::string& description() const noexcept { return description_; }
  RecordType type() const noexcept { return type_; }
  /// A layer that came with an image, and not a record of ours.
  bool is_image_layer() const noexcept { return image_layer_; }

  /// The daemon's name of the chain of layers that ends here; empty while the daemon does not hold this layer.
  std::string chain_id() const;
  /// Digest of the layer's tar; empty as chain_id().
  std::string diff_id() const;
  /// The layer's own directory, as an overlay's upper directory looks. It moves when the daemon takes it: to mount the
  /// tree use Snapshots, which follows.
  sys::Path directory() const;
  /// Bytes of its own layer.
  std::int64_t size() const;
  /// The directories for an overlay, topmost first.
  std::vector<sys::Path> lower_directories() const;

 private:
  friend class Store;
  friend class Snapshots;
  Snapshot() = default;

  std::string id_;
  SnapshotPtr parent_;
  std::size_t depth_ = 1;
  Timestamp created_;
  std::string description_;
  RecordType type_ = RecordType::regular;
  bool image_layer_ = false;
  std::shared_ptr<void> lease_;    // the daemon's promise to keep an image's layers
  std::shared_ptr<void> mutable_;  // a frozen directory is locked while this is held
  struct State;                    // what changes: place, size, names; has a mutex of its own
  std::unique_ptr<State> state_;
};

/// A layer that the daemon has unpacked.
struct ImageLayer {
  std::string chain_id;
  std::string diff_id;
  sys::Path directory;
  std::int64_t size = 0;
  Timestamp created;
};

/// A tree being made. Removed when destroyed without commit(). Used by one thread at a time.
class Workspace {
 public:
  virtual ~Workspace() = default;
  /// Mounts the tree, writable, in the worker's mount namespace (at the first call), and returns its root. Unmounted
  /// by commit() and the destructor; who still works in it then keeps it alive, so end them first.
  virtual sys::Path mount() = 0;
  /// The layer being written. Not to be written to directly while it is mounted.
  virtual sys::Path upper() const = 0;
  /// The tree as a record. Nothing finds it yet but who holds the result, until CacheIndex::store().
  virtual SnapshotPtr commit() = 0;
};

/// A tree mounted read-only; unmounted when the last view of it goes.
class View {
 public:
  virtual ~View() = default;
  virtual const sys::Path& path() const = 0;
};

/// Keeps a snapshot's directory from being mounted by its path while the daemon moves it (see begin_move).
class Move {
 public:
  virtual ~Move() = default;
};

/// The trees.
class Snapshots {
 public:
  explicit Snapshots(Store& store) : store_(store) {}

  /// Begins a new layer on `parent`. Throws invalid_argument `max depth exceeded` beyond 400 layers, unavailable when
  /// the disk is nearly full. `description` is shown by `docker buildx du`: "mount / from exec /bin/sh -c …".
  std::unique_ptr<Workspace> create(SnapshotPtr parent, RecordType type, std::string description);
  /// Scratch is an empty directory.
  std::unique_ptr<View> view(const SnapshotPtr& snapshot);
  /// An image's tree; nullptr if it has no layers. `layers` are the lowest first. `lease` keeps them in the daemon and
  /// lives as long as the snapshot or any that is made on it in this process.
  SnapshotPtr adopt_image(const std::vector<ImageLayer>& layers, std::shared_ptr<void> lease);

  /// To be held around Engine::commit_layer() of this snapshot's directory and became_layer(): who wants to mount
  /// meanwhile, and no longer finds the directory, waits. A second mover waits for the first (look at chain_id() then).
  std::unique_ptr<Move> begin_move(const SnapshotPtr& snapshot);
  /// The daemon holds this snapshot as layer `chain_id`, in `directory`, and keeps it until it is released (see
  /// LayerHooks). If that is not the snapshot's own directory, moved, but one that the daemon had already, the
  /// snapshot's own is removed when its last user is gone.
  void became_layer(const SnapshotPtr& snapshot, std::string chain_id, std::string diff_id, sys::Path directory,
                    std::int64_t size);

 private:
  Store& store_;
};

}  // namespace gantry::buildcache
