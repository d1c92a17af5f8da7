#pragma once

#include <string>
#include <string_view>

namespace gantry::runtime {

/// What a bind mount with `propagation` needs from the container's root: "shared", "rslave" or "" (nothing).
/// A shared or slave mount only works if the source's own mount is shared (or a slave).
/// Throws invalid_argument: "path /a is mounted on / but it is not a shared mount". Blocks on realpath(3).
std::string required_root_propagation_blocking(const std::string& source, std::string_view propagation);

/// The stronger one of two answers: shared wins over slave, slave over nothing.
std::string merge_root_propagation(std::string_view a, std::string_view b);

}  // namespace gantry::runtime
