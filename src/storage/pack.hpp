#pragma once

#include <string>
#include <vector>

#include "storage/byte_source.hpp"
#include "sys/id_mapping.hpp"

namespace gantry::storage {

enum class PackMode {
  tree,   // a tree as it is
  layer,  // an overlay upper directory: whiteouts and opaque directories become .wh. entries
};

struct PackOptions {
  PackMode mode = PackMode::tree;
  /// What entry names begin with, without slashes at its ends: "etc" gives "etc/", "etc/passwd". Empty: names are
  /// relative, the directory itself has no entry. ".": "./", "./passwd".
  std::string prefix;
  bool follow_mounts = false;  // false: a mount point below is written as an empty directory
  sys::IdMapping ids{};        // owners are written as a container with this mapping sees them
};

/// Writes what is open as `root` (a directory, or with O_PATH anything) as a tar to `sink`: names in byte order,
/// parents first, PAX records where ustar has no room, extended attributes as SCHILY.xattr, hard links once with
/// content, sockets left out. Times are cut to seconds, as Docker's archives are. The same tree gives the same bytes.
/// Memory is bounded by the largest directory. A file that shrinks or grows while it is read is padded with zeros or
/// cut to the size announced.
/// Blocks  for as long as `sink` does. Throws Error, naming the path.
void pack(int root, const PackOptions& options, const ByteSink& sink);

}  // namespace gantry::storage
