#pragma once

#include <cstddef>
#include <cstdint>

namespace gantry::storage {

/// What a tar may ask for. Crossing one is an invalid_argument that names the limit and the entry.
/// Figures: security.md §6.3.
struct UnpackBudget {
  std::uint64_t bytes = std::uint64_t{64} << 30;  // uncompressed, holes of sparse files included
  std::uint64_t entries = 5'000'000;
  std::size_t path_length = 4096;
  std::size_t component_length = 255;
  std::size_t depth = 255;
  std::size_t xattr_bytes = 64 << 10;  // per entry, names and values
  /// How much larger than its compressed form a stream may become, once `ratio_free_bytes` are out.
  std::uint64_t ratio = 1200;  // gzip cannot exceed 1032; a layer of zeros in zstd can, and is a bomb
  std::uint64_t ratio_free_bytes = std::uint64_t{256} << 20;
};

}  // namespace gantry::storage
