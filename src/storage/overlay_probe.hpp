#pragma once

#include "storage/rootfs.hpp"
#include "sys/paths.hpp"

namespace gantry::storage {

/// Mounts a scratch overlay below tmp/, deletes and re-creates something in it, and looks at what that leaves.
/// Blocks. Throws unavailable, saying what to do, if the data root cannot hold containers.
StorageFacts probe_storage(const sys::Paths& paths);

/// Docker's name of a file system, by its magic number (statfs(2)).
std::string filesystem_name(const sys::Path& path);

}  // namespace gantry::storage
