#pragma once

#include <string>

#include "async/task.hpp"

namespace gantry::engine {

/// Where a stream's bytes go. One write at a time; it waits while the reader does not read, so nobody writes while
/// holding a lock. Throws cancelled when the reader has gone.
class ByteWriter {
 public:
  virtual ~ByteWriter() = default;
  virtual Task<void> write(std::string bytes) = 0;
};

/// A client that has taken its connection over: bytes both ways. One coroutine may read while another writes.
class StreamClient : public ByteWriter {
 public:
  /// Some bytes; empty when the client sends no more. Throws cancelled when the connection broke.
  virtual Task<std::string> read() = 0;
  /// Tells the client that nothing more comes.
  virtual Task<void> close_write() = 0;
  /// Resumes when the client has gone. Not while a read is pending.
  virtual Task<void> wait_hangup() = 0;
  virtual void close() = 0;
};

}  // namespace gantry::engine
