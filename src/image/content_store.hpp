#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "async/lanes.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "db/image_rows.hpp"
#include "storage/byte_source.hpp"
#include "storage/hash.hpp"
#include "storage/layer_store.hpp"
#include "sys/fd.hpp"
#include "sys/paths.hpp"

namespace gantry::image {

/// What is wrong with the file of a blob; empty if it has that size and digest. Reads all of it: blocks.
std::string examine_blob_blocking(const sys::Path& file, const std::string& digest, std::int64_t size);
/// Moves a damaged file to quarantine/, under a name of its own, and returns that.
sys::Path quarantine_file_blocking(const sys::Paths& paths, const sys::Path& file);

/// Blobs that nothing uses and that are about to go (ContentStore::begin_removal()).
struct BlobRemoval {
  std::map<std::string, std::int64_t> blobs;  // digest to size
  std::int64_t bytes = 0;
};

class ContentStore;

/// Keeps blobs, stored already or not yet, from being swept for as long as it lives. Loop thread.
class BlobHold {
 public:
  BlobHold() = default;
  BlobHold(BlobHold&& other) noexcept;
  BlobHold& operator=(BlobHold&& other) noexcept;
  ~BlobHold();
  void add(const std::string& digest);

 private:
  friend class ContentStore;
  explicit BlobHold(ContentStore* store) : store_(store) {}
  void release() noexcept;
  ContentStore* store_ = nullptr;
  std::vector<std::string> digests_;
};

/// A blob that is being received: an unnamed-to-the-world file below tmp/, hashed as it grows. Its owner uses it from
/// one thread at a time; it may block on the disk. Dropped without ContentStore::commit() it leaves nothing.
class Ingest {
 public:
  explicit Ingest(sys::Path file);
  /// Goes on where a former process left off, with the bytes that are in `file`, unless they are more than `limit`. It
  /// stays there if `keep` is true when this is dropped. Reads all of it.
  /// Throws conflict while somebody else uses the file.
  Ingest(sys::Path file, std::int64_t limit, std::shared_ptr<const std::atomic<bool>> keep);
  ~Ingest();
  Ingest(const Ingest&) = delete;
  Ingest& operator=(const Ingest&) = delete;

  /// Throws when the disk is full.
  void write(std::string_view bytes);
  std::int64_t size() const noexcept { return size_; }
  /// Starts anew from nothing.
  void restart();
  /// A descriptor on the file, for pread(2) of what has been written so far.
  sys::Fd open_reader() const;
  /// The digest of what was written, "sha256:…". After it only restart() makes it writable again.
  const std::string& finish();
  /// Ends the writing and gives the descriptor back: an archive has more files than we may have descriptors.
  void seal();
  /// Begins to write what is not on the disk yet, so that syncing several files costs little more than one.
  void start_sync() noexcept;
  void sync();
  /// Renames the file, which is synced, to `target`. Durable once the directory is synced.
  void move_to(const sys::Path& target);

 private:
  sys::Path path_;
  bool stored_ = false;  // the file is where it is to stay
  std::shared_ptr<const std::atomic<bool>> keep_;
  sys::Fd fd_;
  storage::Sha256 hash_;
  std::string digest_;
  std::int64_t size_ = 0;
};

/// Something received that is to become a blob. `digest` empty: whatever it hashes to; `size` negative: whatever it is.
struct Incoming {
  std::shared_ptr<Ingest> data;
  std::string digest;
  std::int64_t size = -1;
};

/// Blobs by digest: `<data-root>/content/blobs/sha256/<hex>`. A blob is written below tmp/ while it is hashed, synced,
/// renamed, and then gets a row; so a row means that the complete blob was on stable storage.
/// Loop thread, except functions that end in `_blocking`.
class ContentStore {
 public:
  ContentStore(async::Lanes& lanes, db::Db& db, const sys::Paths& paths);

  /// Loads the rows; forgets those whose file is gone or has another size, and removes files without a row, and
  /// interrupted downloads that are older than a day.
  /// After storage::LayerStore::recover(), which empties tmp/.
  Task<std::vector<storage::Problem>> recover();

  bool contains(const std::string& digest) const { return blobs_.contains(digest); }
  /// Bytes of a stored blob; nullopt if it is not stored.
  std::optional<std::int64_t> find_size(const std::string& digest) const;
  std::int64_t total_size() const;
  std::vector<std::string> list() const;
  sys::Path path(const std::string& digest) const;

  /// A file to write a new blob to.
  std::shared_ptr<Ingest> begin() const;
  /// The same for the blob `digest` of at most `size` bytes, with what an interrupted download of it left here. Reads
  /// that: blocks.
  std::shared_ptr<Ingest> resume_blocking(const std::string& digest, std::int64_t size) const;
  /// From now on unfinished downloads stay for the next daemon: this one is about to end.
  void keep_unfinished() noexcept { *keep_unfinished_ = true; }
  /// Removes what interrupted downloads left and nobody resumes now. Returns the bytes freed.
  Task<std::int64_t> remove_unfinished();
  /// Stores what was received, in one transaction.
  /// Throws corrupted if digest or size are not the expected ones. Returns the digests. Durable on return.
  Task<std::vector<std::string>> commit(std::vector<Incoming> incoming);
  Task<std::string> commit(std::shared_ptr<Ingest> ingest, std::string digest, std::int64_t size);
  /// Stores a small blob.
  Task<std::string> put(std::string bytes);
  /// The whole of a manifest or config, verified against its digest. Throws not_found, or corrupted if it is damaged.
  Task<std::string> read(std::string digest, std::size_t limit);
  std::string read_blocking(const std::string& digest, std::size_t limit) const;
  /// A stored blob as a stream, not verified. Throws not_found.
  Task<std::shared_ptr<storage::ByteSource>> open(std::string digest);

  BlobHold hold() { return BlobHold(this); }
  /// Takes every blob out of the index that is neither in `used` nor held. Who stores one of them from here on waits
  /// until the caller, having removed the rows in whatever transaction it likes, ends the removal; or, if the rows are
  /// still there, cancels it.
  BlobRemoval begin_removal(const std::set<std::string>& used);
  /// Removes the files. With `resumable` large ones become unfinished downloads, which a pull goes on from.
  Task<void> end_removal(BlobRemoval removal, bool resumable = false);
  void cancel_removal(const BlobRemoval& removal);
  /// What is wrong with a stored blob's file; empty if it has its size and digest. Reads all of it.
  Task<std::string> examine(std::string digest);
  /// Forgets a blob that was found damaged, so that it can be fetched again, and keeps its file in quarantine/. Returns
  /// where.
  Task<sys::Path> quarantine(std::string digest);

 private:
  friend class BlobHold;
  bool is_removing(const std::vector<Incoming>& incoming) const;
  Task<std::vector<std::string>> commit_steps(std::vector<Incoming> incoming);
  Task<void> end_removal_steps(BlobRemoval removal, bool resumable);
  Task<sys::Path> quarantine_steps(std::string digest);

  async::Lanes& lanes_;
  db::Db& db_;
  const sys::Paths paths_;
  const std::shared_ptr<std::atomic<bool>> keep_unfinished_ = std::make_shared<std::atomic<bool>>(false);
  std::map<std::string, std::int64_t> blobs_;
  std::map<std::string, int> holds_;
  std::set<std::string> removing_;  // their files are about to go: a commit of the same blob waits
  async::Signal removed_;
};

}  // namespace gantry::image
