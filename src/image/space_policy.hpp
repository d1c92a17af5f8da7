#pragma once

#include <cstdint>

#include "async/task.hpp"
#include "image/images.hpp"
#include "sys/paths.hpp"

namespace gantry::image {

/// Removes images until `keep_free` bytes of the data root's file system are free: those that no container uses, the
/// ones longest not pulled or tagged first, names and all. 0: does nothing. Stops when nothing is left to remove.
/// Returns how many went.
Task<int> keep_space(Images& images, async::Lanes& lanes, sys::Path data_root, std::int64_t keep_free);

}  // namespace gantry::image
