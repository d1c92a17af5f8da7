#include "storage/byte_source.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/error.hpp"

namespace asio = boost::asio;

namespace gantry::storage {
namespace {

class StringSource final : public ByteSource {
 public:
  explicit StringSource(std::string bytes) : bytes_(std::move(bytes)) {}
  std::size_t read(char* to, std::size_t size) override {
    const std::size_t count = std::min(size, bytes_.size() - at_);
    std::memcpy(to, bytes_.data() + at_, count);
    at_ += count;
    return count;
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

class FileSource final : public ByteSource {
 public:
  explicit FileSource(sys::Fd file) : file_(std::move(file)) {}
  std::size_t read(char* to, std::size_t size) override {
    for (;;) {
      if (aborted_.load(std::memory_order_relaxed)) throw Error(Errc::cancelled, "reading was given up");
      const ssize_t got = ::read(file_.get(), to, size);
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR) throw Error::from_errno(errno, "read");
    }
  }
  void abort() noexcept override { aborted_.store(true, std::memory_order_relaxed); }

 private:
  sys::Fd file_;
  std::atomic<bool> aborted_{false};
};

}  // namespace

std::shared_ptr<ByteSource> make_string_source(std::string bytes) {
  return std::make_shared<StringSource>(std::move(bytes));
}

std::shared_ptr<ByteSource> make_file_source(sys::Fd file) { return std::make_shared<FileSource>(std::move(file)); }

std::string read_everything(ByteSource& source, std::size_t limit) {
  std::string out;
  char buffer[65536];
  while (const std::size_t got = source.read(buffer, sizeof buffer)) {
    if (out.size() + got > limit)
      throw Error(Errc::invalid_argument, fmt::format("stream is larger than {} bytes", limit));
    out.append(buffer, got);
  }
  return out;
}

/// Coroutines of the loop that wait for the other side. Wake-ups are posted: they come from any thread.
struct ByteChannel::Wakers {
  struct Waiter {
    explicit Waiter(const asio::any_io_executor& loop) : timer(loop, asio::steady_timer::time_point::max()) {}
    asio::steady_timer timer;
    bool woken = false;
  };
  std::shared_ptr<Waiter> reader;
  std::shared_ptr<Waiter> writer;

  static void wake(std::shared_ptr<Waiter>& slot) {
    if (!slot) return;
    auto waiter = std::exchange(slot, nullptr);
    auto executor = waiter->timer.get_executor();
    asio::post(executor, [waiter] {
      waiter->woken = true;
      waiter->timer.cancel();
    });
  }
  static Task<void> wait(std::shared_ptr<Waiter> waiter) {
    boost::system::error_code ec;
    co_await waiter->timer.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    if (!waiter->woken) throw boost::system::system_error(ec);  // the caller is cancelled
  }
};

ByteChannel::ByteChannel(std::size_t capacity) : capacity_(capacity), wakers_(std::make_unique<Wakers>()) {}
ByteChannel::~ByteChannel() = default;

std::size_t ByteChannel::read(char* to, std::size_t size) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return queued_ > 0 || closed_ || failure_ || reader_left_; });
  if (reader_left_) throw Error(Errc::cancelled, "reading was given up");
  if (queued_ == 0) {
    if (failure_) std::rethrow_exception(failure_);
    return 0;
  }
  const std::string& front = pieces_.front();
  const std::size_t count = std::min(size, front.size() - front_offset_);
  std::memcpy(to, front.data() + front_offset_, count);
  front_offset_ += count;
  queued_ -= count;
  if (front_offset_ == front.size()) {
    pieces_.pop_front();
    front_offset_ = 0;
  }
  wake_writer(lock);
  return count;
}

void ByteChannel::abort() noexcept {
  std::unique_lock lock(mutex_);
  if (reader_left_) return;
  reader_left_ = true;
  pieces_.clear();
  front_offset_ = 0;
  queued_ = 0;
  wake_reader();
  wake_writer(lock);
}

void ByteChannel::push(std::string_view bytes) {
  constexpr std::size_t kPiece = 64 << 10;
  if (bytes.empty()) return;
  queued_ += bytes.size();
  if (!pieces_.empty() && pieces_.back().size() + bytes.size() <= kPiece) {
    pieces_.back().append(bytes);
  } else {
    pieces_.emplace_back();
    pieces_.back().reserve(std::max(bytes.size(), kPiece / 4));
    pieces_.back().append(bytes);
  }
  wake_reader();
}

void ByteChannel::rethrow_if_left() const {
  if (reader_left_) throw Error(Errc::cancelled, "the reader has left");
}

void ByteChannel::wake_reader() {
  changed_.notify_all();
  Wakers::wake(wakers_->reader);
}

void ByteChannel::wake_writer(std::unique_lock<std::mutex>& lock) {
  if (!reader_left_ && queued_ > capacity_ / 2) return;  // not for each small piece of room
  changed_.notify_all();
  Wakers::wake(wakers_->writer);
  if (!std::exchange(refused_, false)) return;
  auto callback = room_callback_;
  lock.unlock();
  if (callback) callback();
}

void ByteChannel::write_blocking(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return has_room() || reader_left_; });
  rethrow_if_left();
  push(bytes);
}

Task<void> ByteChannel::write(std::string bytes) {
  const asio::any_io_executor loop = co_await asio::this_coro::executor;
  for (;;) {
    std::shared_ptr<Wakers::Waiter> waiter;
    {
      const std::lock_guard lock(mutex_);
      rethrow_if_left();
      if (has_room()) {
        push(bytes);
        co_return;
      }
      waiter = std::make_shared<Wakers::Waiter>(loop);
      wakers_->writer = waiter;
    }
    co_await Wakers::wait(waiter);
  }
}

bool ByteChannel::try_write(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  rethrow_if_left();
  if (!has_room()) {
    refused_ = true;
    return false;
  }
  push(bytes);
  return true;
}

void ByteChannel::on_room(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  room_callback_ = std::move(callback);
}

void ByteChannel::close() noexcept {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  wake_reader();
}

void ByteChannel::fail(std::exception_ptr error) noexcept {
  const std::lock_guard lock(mutex_);
  if (!closed_ && !failure_) failure_ = std::move(error);
  wake_reader();
}

Task<std::string> ByteChannel::next() {
  const asio::any_io_executor loop = co_await asio::this_coro::executor;
  for (;;) {
    std::shared_ptr<Wakers::Waiter> waiter;
    {
      std::unique_lock lock(mutex_);
      if (reader_left_) throw Error(Errc::cancelled, "reading was given up");
      if (queued_ > 0) {
        std::string piece = std::move(pieces_.front());
        pieces_.pop_front();
        if (front_offset_ > 0) piece.erase(0, std::exchange(front_offset_, 0));
        queued_ -= piece.size();
        wake_writer(lock);
        co_return piece;
      }
      if (failure_) std::rethrow_exception(failure_);
      if (closed_) co_return std::string();
      waiter = std::make_shared<Wakers::Waiter>(loop);
      wakers_->reader = waiter;
    }
    co_await Wakers::wait(waiter);
  }
}

}  // namespace gantry::storage
