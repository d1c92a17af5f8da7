#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "buildops/mode_change.hpp"
#include "buildops/owner.hpp"

/// COPY and ADD: from one tree into another. Facts: buildkit.md §4.6 and appendix E; BuildKit's solver/llbsolver/file
/// and tonistiigi/fsutil/copy, whose behaviour users know.
namespace gantry::buildops {

struct CopyRequest {
  std::string source;       // absolute in the source tree; ".." stays inside
  std::string destination;  // absolute in the destination tree; a "/" at the end is significant
  std::optional<Owner> owner;
  ModeChange mode;
  bool follow_symlink = false;      // the source's last component, and each match of a wildcard
  bool directory_contents = false;  // a directory's entries are copied instead of itself
  bool unpack = false;              // an archive, told by its content, is unpacked
  bool create_destination = false;  // missing parents are made
  bool wildcards = false;           // the source is a pattern
  bool allow_empty_wildcard = false;
  bool always_replace = false;  // what is in the way goes, also a directory for a file and the other way round
  std::optional<std::int64_t> timestamp;  // nanoseconds since 1970, for everything copied; else the source's times
  std::vector<std::string> include;       // patterns relative to the source
  std::vector<std::string> exclude;
  std::vector<std::string> required;  // paths or patterns below the source of which each must match something
};

/// Copies from the tree open as `source_root` into the one open as `destination_root`. Nothing outside of the two is
/// touched or read, whatever links they hold; devices of the source are made, never opened.
/// Blocks. Throws not_found (the source), invalid_argument, conflict with BuildKit's texts; cancelled after a stop.
/// What was copied until then stays: the destination is a workspace that is dropped.
void copy(int source_root, int destination_root, const CopyRequest& request, std::stop_token stop);

}  // namespace gantry::buildops
