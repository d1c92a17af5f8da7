#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "storage/byte_source.hpp"
#include "storage/tar_reader.hpp"

namespace gantry::storage {

/// Writes a tar: ustar headers, with PAX records before those that ustar has no room for. Bytes go to the sink in
/// pieces of up to 256 KiB. Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block".
class TarWriter {
 public:
  explicit TarWriter(const ByteSink& sink);

  /// A directory's name ends in "/". A file is followed by write_data() calls of `size` bytes together.
  /// Times are cut to seconds.
  void write_header(const TarEntry& entry);
  void write_data(std::string_view bytes);
  void write_zeros(std::uint64_t count);
  /// Fills the last block of the current file.
  void end_data();
  /// The end-of-archive blocks, and all that is buffered.
  void finish();

 private:
  void write(std::string_view bytes);
  void write_pax(const std::string& records);
  void flush();

  const ByteSink& sink_;
  std::string buffer_;
  std::uint64_t written_ = 0;
};

}  // namespace gantry::storage
