#pragma once

#include <memory>

#include "async/task.hpp"
#include "image/context.hpp"
#include "image/transfers.hpp"

namespace gantry::image {

/// See Transfers::save.
Task<std::shared_ptr<storage::ByteChannel>> save(Context& context, SaveRequest request);

}  // namespace gantry::image
