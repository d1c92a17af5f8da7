#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proto/fsutil.pb.h"

namespace gantry::buildcache {
class View;
}

/// Reading in a tree that a build made: paths are resolved as if its root were "/".
namespace gantry::builder {

/// `length` bytes (0: all) from `offset`. nullopt if there is no such file. Throws invalid_argument if it is no regular
/// file, or if more than `limit` bytes are asked for.
std::optional<std::string> read_tree_file(const buildcache::View& tree, const std::string& path, std::int64_t offset,
                                          std::int64_t length, std::size_t limit);

/// Throws not_found. The last component is followed if it is a symbolic link.
fsutil::types::Stat stat_tree_file(const buildcache::View& tree, const std::string& path);

/// The entries whose names match the pattern (Go's filepath.Match; empty: all), sorted by name. Throws not_found, and
/// invalid_argument for more than 100,000.
std::vector<fsutil::types::Stat> list_tree_directory(const buildcache::View& tree, const std::string& path,
                                                     const std::string& pattern);

}  // namespace gantry::builder
