#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

/// For fuzz targets that read tars: a mutated header would be refused for its checksum before anything looks at it.
namespace gantry::storage::fuzz {

/// Puts the checksum of each block right that has the looks of a header.
inline void fix_checksums(std::uint8_t* data, std::size_t size) {
  for (std::size_t at = 0; at + 512 <= size; at += 512) {
    std::uint8_t* header = data + at;
    if (std::memcmp(header + 257, "ustar", 5) != 0) continue;
    unsigned sum = 8 * ' ';
    for (std::size_t i = 0; i < 512; ++i)
      if (i < 148 || i >= 156) sum += header[i];
    char digits[8];
    std::snprintf(digits, sizeof digits, "%06o", sum);
    std::copy(digits, digits + 7, reinterpret_cast<char*>(header) + 148);
    header[155] = ' ';
  }
}

}  // namespace gantry::storage::fuzz

extern "C" inline std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                                      unsigned seed) {
  const std::size_t mutated = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 != 0) gantry::storage::fuzz::fix_checksums(data, mutated);
  return mutated;
}
