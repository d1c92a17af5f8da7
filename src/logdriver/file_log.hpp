#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "logdriver/settings.hpp"
#include "logs/compressor.hpp"
#include "logs/pipe.hpp"
#include "sys/process.hpp"

namespace gantry::logdriver {

/// Writes the container's log file for the shim, which never waits for the disk then. Settings: path, max_size,
/// max_file, attrs (see logs/writer.hpp), compress (0 or 1).
class FileLog {
 public:
  FileLog(const Settings& settings, int shim);
  /// Until the shim has closed its end, everything is written, the shim's end is closed and what was to be compressed
  /// is. Blocks on the disk.
  void run();

 private:
  using Clock = std::chrono::steady_clock;
  void read_shim();
  void take(std::string_view bytes);
  void end_line(logs::Stream stream, Timestamp time);
  void begin_compression(int from, int to, std::function<void(bool)> done);
  void end_compression();
  void report_dropped(bool now);
  void tell(const std::string& line) const;

  const int shim_;
  logs::Writer writer_;
  std::optional<logs::Compressor> compressor_;
  const bool compress_;
  sys::Child child_;  // compresses
  std::function<void(bool)> compressed_;

  std::string header_;      // the part of it that has come
  logs::PipeHeader frame_;  // its size is what has not yet come
  Timestamp last_time_{};
  bool in_line_[2] = {false, false};
  bool ended_ = false;
  std::uint64_t reported_ = 0;
  Clock::time_point report_at_{};
};

}  // namespace gantry::logdriver
