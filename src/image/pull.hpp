#pragma once

#include "async/task.hpp"
#include "image/context.hpp"
#include "image/progress.hpp"
#include "image/transfers.hpp"

namespace gantry::image {

/// See Transfers::pull.
Task<void> pull(Context& context, PullRequest request, ProgressPtr progress);

/// See Transfers::inspect_remote.
Task<DistributionInfo> inspect_remote(Context& context, std::string image, RegistryAuth auth);

}  // namespace gantry::image
