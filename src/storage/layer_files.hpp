#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "storage/budget.hpp"
#include "storage/byte_source.hpp"
#include "storage/unpack.hpp"
#include "sys/paths.hpp"

/// The part of LayerStore that touches the disk. Synchronous: lane only. All of it throws Error.
namespace gantry::storage {

/// A layer that is unpacked below tmp/ and not yet in place. Unless it was installed, its directory goes with it.
struct StagedLayer {
  ~StagedLayer();
  sys::Path directory;  // holds "diff"
  std::string diff_id;
  UnpackResult result;
  std::string fingerprint;  // set by settle_layer()
};

/// Unpacks `source` (compressed or not) into a new directory below tmp/, hashing on the way.
std::unique_ptr<StagedLayer> stage_layer(const sys::Paths& paths, const std::shared_ptr<ByteSource>& source,
                                         const UnpackBudget& budget);

/// Completes a staged layer by what only the layers below (`parents`, topmost first) know: directories that the tar
/// implied get the looks that they have there, and an opaque root becomes a whiteout of each name there.
void settle_layer(StagedLayer& staged, const std::vector<sys::Path>& parents);

/// Puts a staged layer on stable storage and renames it to `place`, which does not exist or is left over from a crash.
void install_layer(StagedLayer& staged, const sys::Path& place);

/// Renames a directory into tmp/, where the next start removes it if nobody does before. Returns its new path; the old
/// one needs not exist.
sys::Path move_aside(const sys::Paths& paths, const sys::Path& directory);
/// Takes a directory out of the way with one rename, and then removes it.
void discard_directory(const sys::Paths& paths, const sys::Path& directory);

}  // namespace gantry::storage
