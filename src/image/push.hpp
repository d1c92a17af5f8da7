#pragma once

#include "async/task.hpp"
#include "image/context.hpp"
#include "image/transfers.hpp"

namespace gantry::image {

/// See Transfers::push.
Task<void> push(Context& context, PushRequest request, ProgressPtr progress);

}  // namespace gantry::image
