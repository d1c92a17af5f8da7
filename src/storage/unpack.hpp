#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "storage/budget.hpp"
#include "storage/byte_source.hpp"
#include "sys/id_mapping.hpp"

namespace gantry::storage {

enum class UnpackMode {
  layer,  // into an empty directory that becomes an overlay lower: ".wh." names become whiteouts
  tree,   // into a tree in use (docker cp, import, build contexts): ".wh." names are ordinary files
};

struct UnpackOptions {
  UnpackMode mode = UnpackMode::tree;
  UnpackBudget budget;
  /// Where in the root names begin: an existing directory, clean and without links on the way. Names cannot climb out
  /// of it, but links that they meet lead anywhere inside the root.
  std::string directory;
  /// A name or the target of a hard link that climbs out with ".." stays in `directory`, as in a chroot, instead of
  /// being refused.
  bool clamp_names = false;
  /// Refuse to replace a directory by something else or the other way round, with Docker's texts.
  bool no_overwrite_dir_non_dir = false;
  /// Everything belongs to this user and group instead of the ones in the tar.
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  /// The owners above and those in the tar are a container's with this mapping.
  sys::IdMapping ids{};
};

struct UnpackResult {
  std::uint64_t entries = 0;          // names that exist now because of it; what was replaced is not counted
  std::uint64_t bytes = 0;            // file content, hard links once
  std::vector<std::string> implicit;  // directories that the tar only implied, parents first; at most 65536
  bool opaque_root = false;  // layer: hides everything below. Overlayfs cannot say so of the root: see settle_layer()
};

/// Unpacks the uncompressed tar `source` into the open directory `root`; nothing outside of `root` is ever touched.
///
/// Names are taken relative to `root`: a leading "/" is dropped, one that climbs out with ".." is refused
/// (see clamp_names). Parents
/// resolve as if `root` were "/" (openat2, RESOLVE_IN_ROOT), so symbolic links on the way stay inside. Links are
/// created as they are written and never followed; hard links must name something inside. A later entry replaces an
/// earlier one. Owners, modes with set-id bits, times with nanoseconds (of directories at the end), devices, FIFOs,
/// sparse files and allowed extended attributes are restored; see is_allowed_xattr(). Sockets are skipped.
/// The source is read to its end, also beyond the end of the archive.
/// Requires  the calling thread to be root. Blocks. Throws invalid_argument, naming the entry, for a tar that breaks
/// the rules; what the source throws. What was unpacked before stays: the caller's directory is scratch, or the
/// client is told.
UnpackResult unpack(int root, ByteSource& source, const UnpackOptions& options);

/// user.* except overlayfs's own, security.capability, and POSIX ACLs. Never trusted.* : overlayfs would obey it.
bool is_allowed_xattr(const std::string& name);

}  // namespace gantry::storage
