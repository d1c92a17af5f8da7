#pragma once

#include <memory>
#include <string_view>

#include "storage/byte_source.hpp"

namespace gantry::image {

/// Compresses a stream to gzip with ISA-L at level 1: several hundred MB/s, for layers that are made here.
class GzipWriter {
 public:
  explicit GzipWriter(storage::ByteSink sink);
  ~GzipWriter();
  GzipWriter(const GzipWriter&) = delete;
  GzipWriter& operator=(const GzipWriter&) = delete;

  void write(std::string_view bytes);
  /// The end of the stream. Once.
  void finish();

 private:
  struct State;
  void pump(std::string_view bytes, bool last);
  storage::ByteSink sink_;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::image
