#include "image/download.hpp"

#include <algorithm>
#include <cerrno>

#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"

namespace gantry::image {
namespace {

constexpr int kMaxResumes = 100;  // a registry that sends a few bytes and hangs up must not keep us for ever

}  // namespace

// ---- GrowingFile

void GrowingFile::expect_answer() {
  std::lock_guard lock(mutex_);
  fresh_answer_ = true;
}

void GrowingFile::restart() {
  std::lock_guard lock(mutex_);
  ingest_->restart();
  written_ = 0;
  ++generation_;
  grown_.notify_all();
}

void GrowingFile::append(int status, std::string_view bytes) {
  if (std::exchange(fresh_answer_, false) && status == 200 && written() > 0) restart();
  if (written() + std::int64_t(bytes.size()) > total_)
    throw Error(Errc::corrupted, fmt::format("the registry sent more than the {} bytes that were announced", total_));
  ingest_->write(bytes);
  std::lock_guard lock(mutex_);
  written_ += std::int64_t(bytes.size());
  grown_.notify_all();
}

void GrowingFile::complete() {
  std::lock_guard lock(mutex_);
  complete_ = true;
  grown_.notify_all();
}

void GrowingFile::fail(std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  failure_ = std::move(error);
  grown_.notify_all();
}

int GrowingFile::generation() const {
  std::lock_guard lock(mutex_);
  return generation_;
}

std::int64_t GrowingFile::written() const {
  std::lock_guard lock(mutex_);
  return written_;
}

// ---- TailSource

TailSource::TailSource(std::shared_ptr<GrowingFile> file, std::chrono::milliseconds patience)
    : file_(std::move(file)),
      patience_(patience),
      generation_(file_->generation()),
      fd_(file_->ingest_->open_reader()) {}

std::size_t TailSource::read(char* to, std::size_t size) {
  std::size_t available = 0;
  {
    std::unique_lock lock(file_->mutex_);
    const auto ready = [&] {
      return aborted_ || file_->failure_ || file_->generation_ != generation_ || file_->written_ > offset_ ||
             file_->complete_;
    };
    if (!file_->grown_.wait_for(lock, patience_, ready) || file_->generation_ != generation_) {
      stalled_ = true;
      throw Error(Errc::unavailable, "the download has stalled");
    }
    if (aborted_) throw Error(Errc::cancelled, "the download was given up");
    if (file_->failure_) std::rethrow_exception(file_->failure_);
    available = static_cast<std::size_t>(file_->written_ - offset_);
  }
  if (available == 0) return 0;
  const ssize_t got = ::pread(fd_.get(), to, std::min(size, available), offset_);
  if (got < 0) throw Error::from_errno(errno, "read blob");
  if (got == 0) {  // cut in this instant by a restart
    stalled_ = true;
    throw Error(Errc::unavailable, "the download has started anew");
  }
  offset_ += got;
  return static_cast<std::size_t>(got);
}

void TailSource::abort() noexcept {
  std::lock_guard lock(file_->mutex_);
  aborted_ = true;
  file_->grown_.notify_all();
}

// ---- DownloadLease

DownloadLease::DownloadLease(Downloads* all, DownloadPtr download, bool owner)
    : all_(all), download_(std::move(download)), owner_(owner) {
  ++download_->waiters;
}

DownloadLease::DownloadLease(DownloadLease&& other) noexcept
    : all_(other.all_), download_(std::move(other.download_)), owner_(other.owner_) {
  other.download_.reset();
}

DownloadLease& DownloadLease::operator=(DownloadLease&& other) noexcept {
  if (this != &other) {
    reset();
    all_ = other.all_;
    download_ = std::exchange(other.download_, nullptr);
    owner_ = other.owner_;
  }
  return *this;
}

DownloadLease::~DownloadLease() { reset(); }

void DownloadLease::reset() noexcept {
  if (DownloadPtr download = std::exchange(download_, nullptr)) all_->leave(download);
}

// ---- Downloads

Downloads::Downloads(boost::asio::any_io_executor loop, async::Lanes& lanes, ContentStore& content)
    : loop_(std::move(loop)), lanes_(lanes), content_(content) {}

DownloadLease Downloads::join(RepositoryPtr repository, const Descriptor& blob) {
  if (const auto it = running_.find(blob.digest); it != running_.end() && it->second->total == blob.size)
    return {this, it->second, false};
  auto download = std::make_shared<Download>(loop_);
  download->digest = blob.digest;
  download->total = blob.size;
  running_[blob.digest] = download;
  DownloadLease lease(this, download, true);
  download->task.spawn("download " + blob.digest, run(download, std::move(repository)));
  return lease;
}

void Downloads::forget(const DownloadPtr& download) {
  const auto it = running_.find(download->digest);
  if (it != running_.end() && it->second == download) running_.erase(it);
}

void Downloads::leave(const DownloadPtr& download) noexcept {
  if (--download->waiters > 0) return;
  forget(download);
  download->task.cancel();
}

Task<void> Downloads::run(DownloadPtr download, RepositoryPtr repository) {
  try {
    co_await fetch(download, repository);
  } catch (const Error&) {
    download->failure = std::current_exception();
    if (download->file) download->file->fail(download->failure);
  }
  forget(download);
  download->changed.notify();
}

Task<void> Downloads::fetch(DownloadPtr download, RepositoryPtr repository) {
  auto ingest = co_await lanes_.bulk.run(
      [this, digest = download->digest, total = download->total] { return content_.resume_blocking(digest, total); });
  download->file = std::make_shared<GrowingFile>(ingest, download->total);
  int failures = 0;
  for (int round = 0;; ++round) {
    bool retry = false;
    const std::int64_t before = download->file->written();
    std::exception_ptr failure;
    try {
      if (co_await attempt(download, repository, &retry)) break;
    } catch (const Error&) {
      failure = std::current_exception();
    }
    const bool progressed = download->file->written() > before && round < kMaxResumes;
    if (!retry || (!progressed && ++failures >= settings_.attempts)) std::rethrow_exception(failure);
    if (progressed) continue;
    const auto delay = settings_.retry_delay * failures;
    for (auto left = delay; left > std::chrono::milliseconds(0); left -= std::chrono::seconds(1)) {
      download->retry_in = static_cast<int>(std::chrono::ceil<std::chrono::seconds>(left).count());
      download->changed.notify();
      co_await async::sleep_for(std::min<std::chrono::milliseconds>(left, std::chrono::seconds(1)));
    }
    download->retry_in = 0;
  }
  download->file->complete();
  download->received = true;
  download->changed.notify();
  FAILPOINT("pull.after_blob");
  (void)co_await content_.commit(ingest, download->digest, download->total);
  download->stored = true;
}

/// True when the whole blob is there and has its digest; otherwise it throws, and `retry` says whether another attempt
/// makes sense.
Task<bool> Downloads::attempt(DownloadPtr download, RepositoryPtr repository, bool* retry) {
  auto file = download->file;
  file->expect_answer();
  const std::int64_t offset = file->written();
  if (offset < download->total || download->total == 0) {
    auto sink = [file](int status, std::string_view bytes) { file->append(status, bytes); };
    BlobAttempt result = co_await repository->fetch_blob(download->digest, offset, sink);
    *retry = result.retry;
    if (!result.complete && result.error) std::rethrow_exception(result.error);
    if (!result.complete) throw Error(Errc::unavailable, "the download was interrupted");
  }
  *retry = true;
  if (file->written() < download->total)
    throw Error(Errc::corrupted, fmt::format("blob {}: unexpected EOF", download->digest));
  if (file->ingest().finish() != download->digest) {
    file->restart();
    throw Error(Errc::corrupted, fmt::format("filesystem layer verification failed for digest {}", download->digest));
  }
  co_return true;
}

}  // namespace gantry::image
