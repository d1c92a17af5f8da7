#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "image/content_store.hpp"
#include "image/registry_client.hpp"
#include "storage/byte_source.hpp"

namespace gantry::image {

/// A blob's file while it grows: the HTTP thread appends, unpacking threads read behind it. Any thread.
class GrowingFile {
 public:
  /// What `ingest` holds already counts as written.
  GrowingFile(std::shared_ptr<Ingest> ingest, std::int64_t total)
      : ingest_(std::move(ingest)), total_(total), written_(ingest_->size()) {}

  /// `status` 200 while there are bytes already means that the server starts anew. Throws corrupted beyond `total`.
  void append(int status, std::string_view bytes);
  /// Each new request's first piece may start anew.
  void expect_answer();
  void restart();
  /// All bytes are there and have the right digest.
  void complete();
  void fail(std::exception_ptr error);
  std::int64_t written() const;
  int generation() const;
  Ingest& ingest() noexcept { return *ingest_; }

 private:
  friend class TailSource;
  const std::shared_ptr<Ingest> ingest_;
  const std::int64_t total_;
  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::int64_t written_;
  int generation_ = 0;  // counts restarts
  bool fresh_answer_ = false;
  bool complete_ = false;
  std::exception_ptr failure_;
};

/// Reads a GrowingFile behind its writer. When no byte comes for a while, or the writer starts anew, it gives up with
/// Error(unavailable) and stalled() is true: the thread that reads is one of few, and must not wait for a registry.
class TailSource final : public storage::ByteSource {
 public:
  explicit TailSource(std::shared_ptr<GrowingFile> file, std::chrono::milliseconds patience = std::chrono::seconds(2));
  std::size_t read(char* to, std::size_t size) override;
  void abort() noexcept override;
  bool stalled() const noexcept { return stalled_; }
  std::int64_t consumed() const noexcept { return offset_; }

 private:
  const std::shared_ptr<GrowingFile> file_;
  const std::chrono::milliseconds patience_;
  const int generation_;
  sys::Fd fd_;
  std::atomic<std::int64_t> offset_{0};
  std::atomic<bool> stalled_{false};
  bool aborted_ = false;  // guarded by file_->mutex_
};

struct DownloadSettings {
  int attempts = 5;  // that bring nothing; one that brought bytes is continued at once
  std::chrono::milliseconds retry_delay = std::chrono::seconds(5);  // times the number of the attempt
};

/// One blob on its way from a registry. Loop thread, apart from `file`.
struct Download {
  explicit Download(const boost::asio::any_io_executor& loop) : task(loop) {}
  std::string digest;
  std::int64_t total = 0;
  std::shared_ptr<GrowingFile> file;  // nullptr until the first request is made
  bool received = false;              // complete and verified
  bool stored = false;                // a blob of the content store
  int retry_in = 0;                   // seconds until the next attempt; 0: not waiting
  std::exception_ptr failure;
  int waiters = 0;
  async::Signal changed;  // received, stored, failure, retry_in
  async::TaskGroup task;
};
using DownloadPtr = std::shared_ptr<Download>;

class Downloads;

/// One pull's interest in a download. When the last goes, the download is cancelled.
class DownloadLease {
 public:
  DownloadLease() = default;
  DownloadLease(Downloads* all, DownloadPtr download, bool owner);
  DownloadLease(DownloadLease&& other) noexcept;
  DownloadLease& operator=(DownloadLease&& other) noexcept;
  ~DownloadLease();
  Download* operator->() const noexcept { return download_.get(); }
  const DownloadPtr& get() const noexcept { return download_; }
  explicit operator bool() const noexcept { return download_ != nullptr; }
  /// Whether it was begun by this lease's pull, with its credentials.
  bool is_owner() const noexcept { return owner_; }
  void reset() noexcept;

 private:
  Downloads* all_ = nullptr;
  DownloadPtr download_;
  bool owner_ = false;
};

/// Every download in flight, by digest: pulls that want the same blob share one. Loop thread.
class Downloads {
 public:
  Downloads(boost::asio::any_io_executor loop, async::Lanes& lanes, ContentStore& content);

  void configure(DownloadSettings settings) { settings_ = settings; }
  /// Begins to fetch `blob`, or joins who already does. Hold the blob first.
  DownloadLease join(RepositoryPtr repository, const Descriptor& blob);

 private:
  friend class DownloadLease;
  Task<void> run(DownloadPtr download, RepositoryPtr repository);
  Task<void> fetch(DownloadPtr download, RepositoryPtr repository);
  Task<bool> attempt(DownloadPtr download, RepositoryPtr repository, bool* retry);
  void leave(const DownloadPtr& download) noexcept;
  void forget(const DownloadPtr& download);

  boost::asio::any_io_executor loop_;
  async::Lanes& lanes_;
  ContentStore& content_;
  DownloadSettings settings_;
  std::map<std::string, DownloadPtr> running_;
};

}  // namespace gantry::image
