#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "buildcache/snapshots.hpp"

namespace gantry::buildcache {

/// What finds results again: key → tree. Survives the worker.
class CacheIndex {
 public:
  explicit CacheIndex(Store& store) : store_(store) {}

  /// The tree that was stored under the key (nullptr: scratch), if it is still there with all that it stands on.
  /// Counts as a use of it.
  std::optional<SnapshotPtr> find(std::string_view key);
  /// Later results replace earlier ones.
  void store(std::string_view key, const SnapshotPtr& result);

  /// Notes that the key `from` is known to mean the key `to`. Forgotten in time when nobody asks.
  void link(std::string_view from, std::string_view to);
  std::optional<std::string> find_link(std::string_view from);

  /// Digests of (parts of) a tree, kept as long as it is and, for a Mutable's tree, until that is changed.
  std::optional<std::string> find_digest(const SnapshotPtr& snapshot, std::string_view what);
  void store_digest(const SnapshotPtr& snapshot, std::string_view what, std::string_view digest);
  /// A file beside the tree for what is known about its files; empty for trees that cannot change, where one answer
  /// for the tree is enough.
  sys::Path notes_file(const SnapshotPtr& snapshot);

 private:
  Store& store_;
};

}  // namespace gantry::buildcache
