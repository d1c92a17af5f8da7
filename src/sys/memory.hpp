#pragma once

#include <cstddef>

namespace gantry::sys {

/// Takes what this process does not use at the moment out of its resident memory: free pages of the heap, and the pages
/// of programs and libraries (they stay in the page cache; the next use of one is a minor fault of about a microsecond,
/// which brings its neighbours along). Start-up, recovery and rare verbs leave more code resident than a daemon at rest
/// runs. Safe while other threads run. Returns the bytes of code that were let go. Blocks  well under a millisecond.
/// Never throws.
std::size_t trim_resident_memory() noexcept;

}  // namespace gantry::sys
