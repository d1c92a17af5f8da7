#pragma once

#include <functional>

namespace gantry::storage {

/// Copies the content of the open file `from` to the new empty file `to`: shared where the file system can (reflink),
/// in the kernel where it can, holes kept. `between` is called now and then and may throw, which ends the copy.
/// Blocks. Throws Error.
void copy_content(int from, int to, const std::function<void()>& between = {});

}  // namespace gantry::storage
