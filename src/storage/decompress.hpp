#pragma once

#include <memory>
#include <string_view>

#include "storage/budget.hpp"
#include "storage/byte_source.hpp"

namespace gantry::storage {

enum class Compression { none, gzip, zstd, xz, bzip2 };

/// Told by the first bytes (six are enough). `none` if they are no known magic number.
Compression detect_compression(std::string_view first_bytes) noexcept;

/// The uncompressed bytes of `source`, whose compression is told by its first bytes. Streams with several members or
/// frames are read through. Only one layer of compression is taken off. In-process, so no helper program is looked up.
/// The result throws corrupted ("unexpected EOF" if it is cut short), invalid_argument when the output crosses the
/// budget's `bytes` or `ratio`, and what `source` throws. abort() reaches the source.
std::shared_ptr<ByteSource> decompress(std::shared_ptr<ByteSource> source, const UnpackBudget& budget = {});

/// Reads `source` ahead on a thread of its own, up to `capacity` bytes, so that the work on both sides overlaps.
/// The thread ends with the result, which aborts the source.
std::shared_ptr<ByteSource> read_ahead(std::shared_ptr<ByteSource> source, std::size_t capacity);

}  // namespace gantry::storage
