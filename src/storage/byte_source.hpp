#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "async/task.hpp"
#include "sys/fd.hpp"

namespace gantry::storage {

/// Bytes that are pulled by one thread, in order.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// At least one and at most `size` bytes; 0 at the end, and then always.
  /// Blocks  until there are some. Throws what broke the stream; cancelled after abort().
  virtual std::size_t read(char* to, std::size_t size) = 0;
  /// Makes a read() that waits, and every later one, throw cancelled. From any thread.
  virtual void abort() noexcept {}
};

/// Where a stream is written, piece by piece. It may block and may throw, which ends the writing.
using ByteSink = std::function<void(std::string_view)>;

/// A whole string as a source.
std::shared_ptr<ByteSource> make_string_source(std::string bytes);
/// An open file, from its current offset on.
std::shared_ptr<ByteSource> make_file_source(sys::Fd file);
/// Reads everything. Throws invalid_argument beyond `limit` bytes.
std::string read_everything(ByteSource& source, std::size_t limit);

/// A bounded queue of bytes between two sides, of which each may be a thread or the event loop. It holds at most
/// `capacity` bytes plus one piece. Either side may leave at any time: the other then gets an error instead of waiting.
///
/// Thread side: read(), write_blocking(). Loop side: next(), write(), try_write() with on_room().
class ByteChannel final : public ByteSource {
 public:
  explicit ByteChannel(std::size_t capacity = 1 << 20);
  ~ByteChannel() override;

  std::size_t read(char* to, std::size_t size) override;
  /// The reader leaves: what is queued is dropped, and writers get Error(cancelled).
  void abort() noexcept override;

  /// Throws cancelled once the reader has left.
  void write_blocking(std::string_view bytes);
  /// As write_blocking(), from the loop, without blocking it. Throws when cancelled.
  Task<void> write(std::string bytes);
  /// Takes all of `bytes` or, when the queue is full, nothing and returns false; on_room's callback then comes later.
  /// Throws cancelled once the reader has left.
  bool try_write(std::string_view bytes);
  /// Called, on the reader's thread and at most once per refusal, when try_write() may succeed again or would throw.
  void on_room(std::function<void()> callback);
  /// The writer has written all.
  void close() noexcept;
  /// The writer gives up: once the queue is empty the reader gets `error`.
  void fail(std::exception_ptr error) noexcept;

  /// The next piece; empty at the end. Loop side. Throws when cancelled, or what fail() was given.
  Task<std::string> next();

 private:
  struct Wakers;
  bool has_room() const noexcept { return queued_ < capacity_; }
  void push(std::string_view bytes);
  void rethrow_if_left() const;
  void wake_reader();
  void wake_writer(std::unique_lock<std::mutex>& lock);

  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> pieces_;
  std::size_t front_offset_ = 0;
  std::size_t queued_ = 0;
  bool closed_ = false;
  bool reader_left_ = false;
  bool refused_ = false;
  std::exception_ptr failure_;
  std::function<void()> room_callback_;
  std::unique_ptr<Wakers> wakers_;
};

}  // namespace gantry::storage
