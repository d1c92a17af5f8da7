#pragma once

#include <string>
#include <vector>

namespace gantry::storage {

/// The numbers are Docker's `Kind`.
enum class ChangeKind { modified = 0, added = 1, deleted = 2 };

struct Change {
  std::string path;  // absolute inside the container
  ChangeKind kind;
  bool operator==(const Change&) const = default;
};

/// What the overlay upper directory `upper` changes in the tree `lower`, sorted by path. A directory counts as modified
/// when something below it was added, deleted or modified, as `docker diff` shows it.
/// `lower` is an open directory that shows the layers below as one tree. Blocks; throws Error.
std::vector<Change> list_changes(int upper, int lower);

}  // namespace gantry::storage
