#include "image/content_store.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "db/sqlite.hpp"
#include "image/digest.hpp"
#include "sys/file.hpp"

namespace gantry::image {

// ---- BlobHold

BlobHold::BlobHold(BlobHold&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), digests_(std::move(other.digests_)) {
  other.digests_.clear();
}

BlobHold& BlobHold::operator=(BlobHold&& other) noexcept {
  if (this != &other) {
    release();
    store_ = std::exchange(other.store_, nullptr);
    digests_ = std::move(other.digests_);
    other.digests_.clear();
  }
  return *this;
}

BlobHold::~BlobHold() { release(); }

void BlobHold::add(const std::string& digest) {
  ++store_->holds_[digest];
  digests_.push_back(digest);
}

void BlobHold::release() noexcept {
  if (store_ == nullptr) return;
  for (const std::string& digest : digests_) {
    const auto it = store_->holds_.find(digest);
    if (it != store_->holds_.end() && --it->second == 0) store_->holds_.erase(it);
  }
  digests_.clear();
  store_ = nullptr;
}

// ---- Ingest

Ingest::Ingest(sys::Path file) : path_(std::move(file)) {
  fd_ = sys::open_file(path_, O_RDWR | O_CREAT | O_EXCL, 0600);
}

Ingest::Ingest(sys::Path file, std::int64_t limit, std::shared_ptr<const std::atomic<bool>> keep)
    : path_(std::move(file)), keep_(std::move(keep)) {
  fd_ = sys::open_file(path_, O_RDWR | O_CREAT, 0600);
  struct stat st{};
  // The lock goes with the last descriptor: whoever dropped a download may still unpack from it, and unlinks it then.
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(fd_.get(), &st) != 0 || st.st_nlink == 0) {
    stored_ = true;  // not ours to remove
    throw Error(Errc::conflict, fmt::format("{} is in use", path_.string()));
  }
  if (st.st_size > limit) {
    restart();
    return;
  }
  std::string buffer(256 << 10, '\0');
  for (ssize_t got; (got = ::read(fd_.get(), buffer.data(), buffer.size())) > 0;) {
    hash_.update({buffer.data(), static_cast<std::size_t>(got)});
    size_ += got;
  }
}

Ingest::~Ingest() {
  if (!stored_ && !(keep_ && *keep_)) ::unlink(path_.c_str());
}

void Ingest::write(std::string_view bytes) {
  sys::write_all(fd_.get(), bytes);
  hash_.update(bytes);
  size_ += static_cast<std::int64_t>(bytes.size());
}

void Ingest::restart() {
  if (::ftruncate(fd_.get(), 0) != 0 || ::lseek(fd_.get(), 0, SEEK_SET) != 0)
    throw Error::from_errno(errno, fmt::format("truncate {}", path_.string()));
  hash_ = storage::Sha256();
  digest_.clear();
  size_ = 0;
}

sys::Fd Ingest::open_reader() const { return fd_ ? fd_.duplicate() : sys::open_file(path_, O_RDONLY); }

const std::string& Ingest::finish() {
  if (digest_.empty()) digest_ = hash_.digest();
  return digest_;
}

void Ingest::seal() {
  (void)finish();
  fd_.reset();
}

void Ingest::start_sync() noexcept {
  const sys::Fd own = fd_ ? sys::Fd() : sys::Fd(::open(path_.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  ::sync_file_range(fd_ ? fd_.get() : own.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
}

void Ingest::sync() {
  const sys::Fd own = fd_ ? sys::Fd() : sys::open_file(path_, O_RDWR);
  const int fd = fd_ ? fd_.get() : own.get();
  if (::fchmod(fd, 0644) != 0 || ::fsync(fd) != 0)
    throw Error::from_errno(errno, fmt::format("sync {}", path_.string()));
}

void Ingest::move_to(const sys::Path& target) {
  if (::rename(path_.c_str(), target.c_str()) != 0)
    throw Error::from_errno(errno, fmt::format("rename {} to {}", path_.string(), target.string()));
  path_ = target;
  stored_ = true;
}

std::string examine_blob_blocking(const sys::Path& file, const std::string& digest, std::int64_t size) {
  const sys::Fd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fmt::format("the file cannot be opened: {}", strerrordesc_np(errno));
  storage::Sha256 hash;
  std::string buffer(1 << 20, '\0');
  std::int64_t total = 0;
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0) return fmt::format("the file cannot be read: {}", strerrordesc_np(errno));
    if (got == 0) break;
    hash.update({buffer.data(), static_cast<std::size_t>(got)});
    total += got;
  }
  if (total != size) return fmt::format("the file has {} bytes instead of {}", total, size);
  return hash.digest() == digest ? std::string() : std::string("its content has another digest");
}

sys::Path quarantine_file_blocking(const sys::Paths& paths, const sys::Path& file) {
  sys::make_directories(paths.quarantine(), 0700);
  const sys::Path kept = paths.quarantine() / (file.filename().string() + "-" + random_id().substr(0, 8));
  if (::rename(file.c_str(), kept.c_str()) != 0 && errno != ENOENT)
    throw Error::from_errno(errno, fmt::format("rename {} to {}", file.string(), kept.string()));
  return kept;
}

// ---- ContentStore

ContentStore::ContentStore(async::Lanes& lanes, db::Db& db, const sys::Paths& paths)
    : lanes_(lanes), db_(db), paths_(paths) {}

namespace {

constexpr std::chrono::seconds kKeepUnfinished = std::chrono::hours(24);
constexpr std::int64_t kWorthResuming = 64 << 10;

/// Those that were not written to for `age`, and that nobody writes to now.
std::int64_t remove_unfinished_blocking(const sys::Paths& paths, std::chrono::seconds age) {
  std::int64_t freed = 0;
  const auto limit = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now() - age);
  for (const std::string& name : sys::list_directory(paths.partial_blobs())) {
    const sys::Path path = paths.partial_blobs() / name;
    const sys::Fd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat st{};
    if (!fd || ::fstat(fd.get(), &st) != 0 || st.st_mtime > limit || ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
      continue;
    if (::unlink(path.c_str()) == 0) freed += std::int64_t(st.st_size);
  }
  return freed;
}

struct Inventory {
  std::map<std::string, std::int64_t> good;
  std::vector<std::string> lost;
  std::vector<storage::Problem> problems;
};

std::int64_t regular_size(const sys::Path& path) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) ? std::int64_t(st.st_size) : -1;
}

Inventory take_inventory(const sys::Paths& paths, const std::vector<db::BlobRow>& rows) {
  sys::make_directories(paths.blobs(), 0700);
  sys::make_directories(paths.tmp(), 0700);
  sys::make_directories(paths.partial_blobs(), 0700);
  remove_unfinished_blocking(paths, kKeepUnfinished);
  Inventory out;
  for (const db::BlobRow& row : rows) {
    const sys::Path path = paths.blobs() / digest_hex(row.digest);
    const std::int64_t size = regular_size(path);
    if (size == row.size) {
      out.good.emplace(row.digest, row.size);
      continue;
    }
    out.lost.push_back(row.digest);
    out.problems.push_back({"blob " + row.digest,
                            size < 0 ? std::string("the file is missing")
                                     : fmt::format("the file has {} bytes instead of {}", size, row.size),
                            "forgotten; `gantryd repair` or a pull fetches it again"});
    if (size >= 0) quarantine_file_blocking(paths, path);
  }
  for (const std::string& name : sys::list_directory(paths.blobs())) {
    if (out.good.contains("sha256:" + name)) continue;
    sys::remove_tree(paths.blobs() / name);  // of a store that was interrupted before its row
  }
  return out;
}

}  // namespace

Task<std::vector<storage::Problem>> ContentStore::recover() {
  auto rows = co_await lanes_.db.run([&db = db_] { return db::list_blobs(db); });
  auto inventory = co_await lanes_.quick.run([paths = paths_, rows] { return take_inventory(paths, rows); });
  if (!inventory.lost.empty())
    co_await lanes_.db.run([&db = db_, lost = inventory.lost] {
      for (const std::string& digest : lost) db::remove_blob_row(db, digest);
    });
  blobs_ = std::move(inventory.good);
  co_return std::move(inventory.problems);
}

std::optional<std::int64_t> ContentStore::find_size(const std::string& digest) const {
  const auto it = blobs_.find(digest);
  if (it == blobs_.end()) return std::nullopt;
  return it->second;
}

std::int64_t ContentStore::total_size() const {
  std::int64_t total = 0;
  for (const auto& [digest, size] : blobs_) total += size;
  return total;
}

std::vector<std::string> ContentStore::list() const {
  std::vector<std::string> out;
  for (const auto& [digest, size] : blobs_) out.push_back(digest);
  return out;
}

sys::Path ContentStore::path(const std::string& digest) const { return paths_.blobs() / digest_hex(digest); }

std::shared_ptr<Ingest> ContentStore::begin() const {
  return std::make_shared<Ingest>(paths_.tmp() / ("blob-" + random_id().substr(0, 16)));
}

std::shared_ptr<Ingest> ContentStore::resume_blocking(const std::string& digest, std::int64_t size) const {
  try {
    return std::make_shared<Ingest>(paths_.partial_blobs() / digest_hex(digest), size, keep_unfinished_);
  } catch (const Error& e) {
    if (e.code() != Errc::conflict) throw;
    return begin();
  }
}

Task<std::int64_t> ContentStore::remove_unfinished() {
  co_return co_await lanes_.quick.run(
      [paths = paths_] { return remove_unfinished_blocking(paths, std::chrono::seconds(-1)); });
}

namespace {

std::vector<db::BlobRow> store_blocking(const std::vector<Incoming>& incoming, const sys::Paths& paths) {
  std::vector<db::BlobRow> rows;
  for (const Incoming& in : incoming) {
    const db::BlobRow row{in.data->finish(), in.data->size()};
    if (in.size >= 0 && row.size != in.size)
      throw Error(Errc::corrupted, fmt::format("blob {} has {} bytes instead of {}", in.digest, row.size, in.size));
    if (!in.digest.empty() && row.digest != in.digest)
      throw Error(Errc::corrupted, fmt::format("filesystem layer verification failed for digest {}", in.digest));
    rows.push_back(row);
  }
  if (incoming.size() > 1)
    for (const Incoming& in : incoming) in.data->start_sync();
  // A full disk shows here, while none has its place yet.
  for (const Incoming& in : incoming) in.data->sync();
  for (std::size_t i = 0; i < rows.size(); ++i) incoming[i].data->move_to(paths.blobs() / digest_hex(rows[i].digest));
  sys::sync_directory(paths.blobs());
  return rows;
}

}  // namespace

bool ContentStore::is_removing(const std::vector<Incoming>& incoming) const {
  return std::any_of(incoming.begin(), incoming.end(), [&](const Incoming& in) {
    return in.digest.empty() ? !removing_.empty() : removing_.contains(in.digest);
  });
}

Task<std::vector<std::string>> ContentStore::commit(std::vector<Incoming> incoming) {
  while (is_removing(incoming)) co_await removed_.wait();
  // A file without its row would stay until the next start.
  co_return co_await async::shielded(commit_steps(std::move(incoming)));
}

Task<std::string> ContentStore::commit(std::shared_ptr<Ingest> ingest, std::string digest, std::int64_t size) {
  std::vector<Incoming> one;
  one.push_back({std::move(ingest), std::move(digest), size});
  co_return (co_await commit(std::move(one))).front();
}

Task<std::vector<std::string>> ContentStore::commit_steps(std::vector<Incoming> incoming) {
  const std::vector<db::BlobRow> rows =
      co_await lanes_.bulk.run([incoming, paths = paths_] { return store_blocking(incoming, paths); });
  FAILPOINT("content.commit.after_file");
  co_await lanes_.db.run([&db = db_, rows] { db::save_blobs(db, rows); });
  std::vector<std::string> digests;
  for (const db::BlobRow& row : rows) {
    blobs_[row.digest] = row.size;
    digests.push_back(row.digest);
  }
  co_return digests;
}

Task<std::string> ContentStore::put(std::string bytes) {
  const std::string digest = digest_of(bytes);
  if (contains(digest)) co_return digest;
  auto ingest = co_await lanes_.quick.run([this, bytes] {
    auto file = begin();
    file->write(bytes);
    return file;
  });
  co_return co_await commit(ingest, digest, std::int64_t(bytes.size()));
}

std::string ContentStore::read_blocking(const std::string& digest, std::size_t limit) const {
  std::string bytes = sys::read_file(path(digest), limit);
  if (digest_of(bytes) != digest)
    throw Error(Errc::corrupted, fmt::format("blob {} is damaged on disk: its content has another digest", digest));
  return bytes;
}

Task<std::string> ContentStore::read(std::string digest, std::size_t limit) {
  if (!contains(digest)) throw Error(Errc::not_found, fmt::format("content digest {}: not found", digest));
  co_return co_await lanes_.quick.run([this, digest, limit] { return read_blocking(digest, limit); });
}

Task<std::shared_ptr<storage::ByteSource>> ContentStore::open(std::string digest) {
  if (!contains(digest)) throw Error(Errc::not_found, fmt::format("content digest {}: not found", digest));
  co_return co_await lanes_.quick.run(
      [file = path(digest)] { return storage::make_file_source(sys::open_file(file, O_RDONLY)); });
}

BlobRemoval ContentStore::begin_removal(const std::set<std::string>& used) {
  BlobRemoval out;
  // Out of the index first: nobody can come to rely on a blob that is about to go.
  std::erase_if(blobs_, [&](const auto& blob) {
    if (used.contains(blob.first) || holds_.contains(blob.first)) return false;
    out.blobs.insert(blob);
    out.bytes += blob.second;
    removing_.insert(blob.first);
    return true;
  });
  return out;
}

void ContentStore::cancel_removal(const BlobRemoval& removal) {
  for (const auto& [digest, size] : removal.blobs) {
    blobs_[digest] = size;
    removing_.erase(digest);
  }
  removed_.notify();
}

Task<void> ContentStore::end_removal(BlobRemoval removal, bool resumable) {
  if (!removal.blobs.empty()) co_await async::shielded(end_removal_steps(std::move(removal), resumable));
}

Task<void> ContentStore::end_removal_steps(BlobRemoval removal, bool resumable) {
  co_await lanes_.bulk.run([removal, resumable, paths = paths_] {
    for (const auto& [digest, size] : removal.blobs) {
      const std::string name = digest_hex(digest);
      const sys::Path file = paths.blobs() / name;
      const bool kept =
          resumable && size >= kWorthResuming && ::rename(file.c_str(), (paths.partial_blobs() / name).c_str()) == 0;
      if (!kept) ::unlink(file.c_str());
    }
  });
  for (const auto& [digest, size] : removal.blobs) removing_.erase(digest);
  removed_.notify();
}

Task<std::string> ContentStore::examine(std::string digest) {
  const auto size = find_size(digest);
  if (!size) co_return std::string("it is not stored");
  co_return co_await lanes_.bulk.run(
      [file = path(digest), digest, size = *size] { return examine_blob_blocking(file, digest, size); });
}

Task<sys::Path> ContentStore::quarantine(std::string digest) {
  co_return co_await async::shielded(quarantine_steps(std::move(digest)));
}

Task<sys::Path> ContentStore::quarantine_steps(std::string digest) {
  blobs_.erase(digest);
  removing_.insert(digest);
  std::exception_ptr failure;
  sys::Path kept;
  try {
    co_await lanes_.db.run([&db = db_, digest] { db::remove_blob_row(db, digest); });
    FAILPOINT("content.quarantine.after_row");
    kept = co_await lanes_.quick.run(
        [paths = paths_, file = path(digest)] { return quarantine_file_blocking(paths, file); });
  } catch (const Error&) {
    failure = std::current_exception();
  }
  removing_.erase(digest);
  removed_.notify();
  if (failure) std::rethrow_exception(failure);
  co_return kept;
}

}  // namespace gantry::image
