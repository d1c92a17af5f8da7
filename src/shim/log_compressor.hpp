#pragma once

#include <string>

#include "logs/writer.hpp"
#include "shim/reaper.hpp"

namespace gantry::shim {

/// Compresses rotated log files, one at a time, in a process of its own (gantry-log): neither the writer nor the
/// container's other traffic waits for it. A file that rotates on meanwhile is found where it then is.
class LogCompressor {
 public:
  /// The writer must outlive it. What an earlier run left unfinished is taken up.
  LogCompressor(Reaper& reaper, std::string program, logs::Writer& writer);
  ~LogCompressor();
  LogCompressor(const LogCompressor&) = delete;
  LogCompressor& operator=(const LogCompressor&) = delete;

 private:
  void rotated();
  void start_next();
  void done(bool good);
  sys::Path unfinished() const;

  Reaper& reaper_;
  std::string program_;
  logs::Writer& writer_;
  pid_t child_ = -1;
  std::uint32_t index_ = 0;  // where the file that is being compressed is now
  std::uint64_t inode_ = 0;
};

}  // namespace gantry::shim
