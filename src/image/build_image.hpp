#pragma once

#include <string>

#include "async/task.hpp"
#include "image/context.hpp"
#include "image/transfers.hpp"

namespace gantry::image {

/// See Transfers::import and Transfers::commit.
Task<std::string> import(Context& context, ImportRequest request, ProgressPtr progress);
Task<ImagePtr> commit(Context& context, CommitRequest request);

}  // namespace gantry::image
