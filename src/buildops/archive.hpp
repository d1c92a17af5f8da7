#pragma once

#include <optional>
#include <stop_token>
#include <string>

#include "buildops/owner.hpp"
#include "sys/fd.hpp"

namespace gantry::buildops {

/// True if the open file begins as a tar, perhaps compressed (gzip, bzip2, xz, zstd). Reads from its beginning.
bool is_archive(const sys::Fd& file);

/// Unpacks it into `directory` (resolved, existing) of the tree open as `root`. With `owner` everything becomes theirs.
/// What the archive's names and links try, nothing outside of the tree is touched.
/// Blocks. Throws invalid_argument naming the entry, corrupted, cancelled after a stop.
void unpack_archive(const sys::Fd& file, int root, const std::string& directory, const std::optional<Owner>& owner,
                    std::stop_token stop);

}  // namespace gantry::buildops
