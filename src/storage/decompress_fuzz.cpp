#include <cstdint>
#include <string>
#include <vector>

#include "base/fuzz.hpp"
#include "storage/decompress.hpp"

namespace storage = gantry::storage;

// gzip, zstd, xz and bzip2 streams, within a budget.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  storage::UnpackBudget budget;
  budget.bytes = 8 << 20;
  budget.ratio_free_bytes = 1 << 20;
  gantry::fuzz::accepts([&] {
    const auto source =
        storage::decompress(storage::make_string_source({reinterpret_cast<const char*>(data), size}), budget);
    std::vector<char> piece(64 << 10);
    std::uint64_t total = 0;
    while (const std::size_t got = source->read(piece.data(), piece.size())) total += got;
    gantry::fuzz::require(total <= budget.bytes, "within the budget");
  });
  return 0;
}
