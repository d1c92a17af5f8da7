#pragma once

#include "async/task.hpp"
#include "image/context.hpp"
#include "image/transfers.hpp"

namespace gantry::image {

/// See Transfers::load.
Task<void> load(Context& context, LoadRequest request, ProgressPtr progress);

}  // namespace gantry::image
