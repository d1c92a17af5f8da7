#pragma once

#include <stop_token>
#include <string>

#include "buildcache/cache.hpp"
#include "solver/operation.hpp"

namespace gantry::solver {

/// The digest of what a selector selects in a tree: names below it, types, modes, owners, sizes, link targets, device
/// numbers, attributes and data; neither times nor the name of the selected itself. Links on the way are followed
/// inside of the tree. A pattern that matches nothing has a digest, too.
///
/// Answers are kept as long as the tree. Of copies of contexts, which change from build to build, the digests of files
/// are kept, so that only files that were written are read again.
///
/// Throws not_found `"/path": not found`, cancelled, invalid_argument for a bad pattern.
std::string checksum(buildcache::Cache& cache, const buildcache::SnapshotPtr& snapshot, const Selector& selector,
                     std::stop_token stop = {});

}  // namespace gantry::solver
