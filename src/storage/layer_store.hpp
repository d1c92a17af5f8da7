#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "async/lanes.hpp"
#include "async/task.hpp"
#include "async/task_group.hpp"
#include "db/layer_rows.hpp"
#include "storage/budget.hpp"
#include "storage/byte_source.hpp"
#include "sys/paths.hpp"

namespace gantry::db {
class Db;
}

namespace gantry::storage {

using Layer = db::LayerRow;

/// Something that check() or recover() found. `repair` says what will be, or was, done about it.
struct Problem {
  std::string subject;  // "layer sha256:…", "directory …"
  std::string text;
  std::string repair;
};

/// What to unpack, and on top of what.
struct UnpackRequest {
  std::string parent;                  // chain id; empty for the lowest layer
  std::string diff_id;                 // expected digest of the uncompressed tar; empty: whatever it turns out to be
  std::string blob_digest;             // noted in the row as where to rebuild it from; empty if nothing is kept
  std::shared_ptr<ByteSource> source;  // the tar, uncompressed or gzip, zstd, xz or bzip2, told by its first bytes
  UnpackBudget budget;
};

/// A directory that looks as an overlay's upper layer does, and what it is on top of.
struct AdoptRequest {
  std::string parent;   // chain id, ready; empty for the lowest layer
  std::string diff_id;  // digest of its tar
  std::string blob_digest;
  sys::Path directory;  // on the file system of the data root; becomes the layer's
  Timestamp created;
};

struct StagedLayer;

struct Unpacked {
  Layer layer;
  bool reused = false;  // it was there already, or another request unpacked it; `source` was then not read to its end
};

/// What is wrong with the directory of a layer whose row says that it is ready. Blocks.
std::vector<std::string> examine_layer_blocking(const sys::Paths& paths, const Layer& layer);

/// Layers that nothing uses and that are about to go (LayerStore::begin_removal()).
struct LayerRemoval {
  std::vector<Layer> layers;  // those on top first
  std::int64_t bytes = 0;     // of file content
};

class LayerStore;

/// Keeps layers that no row refers to yet from being removed as unused, for as long as it lives. Loop thread.
class LayerHold {
 public:
  LayerHold() = default;
  LayerHold(LayerHold&& other) noexcept;
  LayerHold& operator=(LayerHold&& other) noexcept;
  ~LayerHold();
  void add(const std::string& chain_id);

 private:
  friend class LayerStore;
  explicit LayerHold(LayerStore* store) : store_(store) {}
  void release() noexcept;
  LayerStore* store_ = nullptr;
  std::vector<std::string> chains_;
};

/// The unpacked layers: `<data-root>/layers/<chain>/diff`, each a cache of a blob, named by the chain id.
///
/// A layer is unpacked below `<data-root>/tmp`, synced, renamed into place, and only then gets a row. So a row means a
/// complete directory; after a crash anything else is removed (recover()). Parents come first: unpack() of a layer
/// needs its parent stored or its unpack begun earlier (it waits for it). Eight layers are unpacked at a time, on
/// threads of their own because they wait for registries and clients; so begin an unpack() when its source is about to
/// deliver, not before.
///
/// Loop thread, except where said. Queries answer from memory.
class LayerStore {
 public:
  LayerStore(boost::asio::any_io_executor loop, async::Lanes& lanes, db::Db& db, const sys::Paths& paths);
  ~LayerStore();
  LayerStore(const LayerStore&) = delete;
  LayerStore& operator=(const LayerStore&) = delete;

  /// Makes the directories and the init layer, empties tmp/, removes directories without a row, and marks rows
  /// without a directory as missing. Idempotent; to be called before anything else. Returns what it found; what is
  /// swept goes in the background.
  Task<std::vector<Problem>> recover();
  /// Aborts the sources of what is being unpacked and waits until no work is left.
  Task<void> stop();

  /// Unpacks a layer while `source` delivers it. Two requests for the same layer share one work. Cancelling the
  /// caller aborts the source.
  /// Throws corrupted if the content does not have `diff_id`; invalid_argument for a tar that breaks the rules or the
  /// budget, naming the entry; not_found if the parent is neither stored nor being unpacked; unavailable when the disk
  /// is nearly full; what the source throws.
  /// Durable  on return.
  Task<Unpacked> unpack(UnpackRequest request);
  /// Makes a layer of a directory, which is moved. If the layer is there already, the directory stays where it is and
  /// the result is `reused`. After a crash, or when it fails half-way, the directory may be gone.
  /// Requires  that nobody writes to the directory, and that the parent is held.
  /// Durable  on return.
  Task<Unpacked> adopt(AdoptRequest request);
  /// Unpacks a missing layer anew from its blob. A layer that is ready is left alone.
  Task<Unpacked> rebuild(std::string chain, std::shared_ptr<ByteSource> source);
  /// Notes that the directory of a layer is not usable, so that it is rebuilt. The directory goes.
  /// Requires  that no mounted root file system uses the layer.
  Task<void> mark_missing(std::string chain);

  /// Keeps the layers that are added to it, stored or not yet, from begin_removal().
  LayerHold hold();
  /// Takes every layer out of the index that is neither in `used`, below one of them, held, nor being unpacked. Who
  /// wants one of them from here on waits until the caller, having removed the rows in whatever transaction it likes,
  /// ends the removal; or, if the rows are still there, cancels it.
  LayerRemoval begin_removal(const std::set<std::string>& used);
  /// Removes the directories. What goes wrong with one does not keep the others; the first failure is thrown.
  Task<void> end_removal(LayerRemoval removal);
  void cancel_removal(const LayerRemoval& removal);

  const Layer* find(const std::string& chain) const;
  /// True if the layer and all below it are ready.
  bool is_complete(const std::string& chain) const;
  /// The layer and those below it, topmost first. Throws not_found, naming the layer, if one is not ready.
  /// An empty chain (an image without layers) gives none.
  std::vector<Layer> get_chain(const std::string& chain) const;
  std::vector<Layer> list() const;
  /// The sum of `size` over a chain.
  std::int64_t chain_size(const std::string& chain) const;
  /// Everything that the layers of this store occupy, from the rows.
  std::int64_t total_size() const;

  /// `<data-root>/layers/<chain>/diff`
  sys::Path directory(const std::string& chain) const;
  /// The lower directories for an overlay mount, topmost first; the last is the init layer with the mount points that
  /// every container needs (see init_layer.hpp).
  std::vector<sys::Path> lower_directories(const std::string& chain) const;

  /// Waits until the layer is neither being unpacked nor removed, but not longer than `limit`.
  Task<void> await_work(std::string chain, std::chrono::milliseconds limit);

  /// Compares a layer's directory with what its row says: names, types, modes, owners, sizes, links, attributes.
  /// Nothing if it is well. Reads no contents.
  Task<std::vector<Problem>> verify_layer(std::string chain);
  /// Compares a layer's directory, contents too, with what `source`, its blob, unpacks to: a second time, below tmp/.
  /// Throws corrupted if the source is not the layer; not_found if a layer below is not ready.
  Task<std::vector<Problem>> verify_contents(std::string chain, std::shared_ptr<ByteSource> source);
  /// Rows without a directory, directories without a row, layers without a parent. Walks no trees.
  Task<std::vector<Problem>> check();

 private:
  struct Work;
  friend class LayerHold;
  using WorkPtr = std::shared_ptr<Work>;
  WorkPtr begin_work(const std::string& chain);
  void end_work(WorkPtr work);  // by value: the index may hold the only other one
  Task<void> wait_for(WorkPtr work);
  Task<void> run_unpack(WorkPtr work, UnpackRequest request);
  Task<void> unpack_steps(WorkPtr work, UnpackRequest request);
  Task<void> place_steps(WorkPtr work, std::shared_ptr<StagedLayer> staged, UnpackRequest request);
  Task<Unpacked> adopt_steps(WorkPtr work, std::string chain, AdoptRequest request);
  Task<void> wait_for_parent(std::string parent);
  Task<void> end_removal_steps(LayerRemoval removal);
  Task<void> mark_missing_steps(std::string chain);
  Task<void> sweep(std::vector<sys::Path> directories);
  std::set<std::string> keep_set(const std::set<std::string>& used) const;

  boost::asio::any_io_executor loop_;
  async::Lanes& lanes_;
  db::Db& db_;
  const sys::Paths paths_;
  std::map<std::string, Layer> layers_;
  std::map<std::string, WorkPtr> works_;  // by chain id: being unpacked or removed
  std::set<WorkPtr> nameless_;            // being unpacked without a known diff id
  std::map<std::string, int> holds_;
  async::Lane unpack_lane_;  // its threads wait for registries and clients, which must not delay other bulk work
  async::TaskGroup tasks_;
};

}  // namespace gantry::storage
