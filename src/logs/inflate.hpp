#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "sys/fd.hpp"

namespace gantry::logs {

/// Reads a gzip file from its beginning, piece by piece. About 60 KiB of state while it lives. Blocks on the disk.
class GzipReader {
 public:
  /// `fd` must outlive it; its file position is not used.
  explicit GzipReader(int fd);
  ~GzipReader();
  GzipReader(GzipReader&&) noexcept;
  GzipReader& operator=(GzipReader&&) noexcept;

  /// Appends up to `limit` bytes. false at the end of the file, and where it is damaged or cut off.
  bool read(std::string& out, std::size_t limit);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::logs
