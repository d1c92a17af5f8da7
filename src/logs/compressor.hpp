#pragma once

#include <cstdint>
#include <functional>

#include "logs/writer.hpp"

namespace gantry::logs {

/// Compresses rotated log files, one at a time and elsewhere: the writer does not wait for it. A file that rotates on
/// meanwhile is found where it then is. What an earlier run left unfinished is taken up at the start; that run's
/// compressor may still be at work.
class Compressor {
 public:
  /// Begins to compress what `from` is into `to`, and calls `done` later. The descriptors are its only for the call.
  /// Throws if it cannot begin.
  using Start = std::function<void(int from, int to, std::function<void(bool good)> done)>;

  /// The writer must outlive it, and it must outlive every `done`.
  Compressor(Writer& writer, Start start);
  ~Compressor();
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  bool busy() const noexcept { return busy_; }

 private:
  void rotated();
  void start_next();
  void done(bool good);
  sys::Path unfinished() const;

  Writer& writer_;
  Start start_;
  bool busy_ = false;
  std::uint32_t index_ = 0;       // where the file that is being compressed is now
  std::uint64_t plain_ = 0;       // its inode
  std::uint64_t compressed_ = 0;  // the inode of what it becomes
};

}  // namespace gantry::logs
