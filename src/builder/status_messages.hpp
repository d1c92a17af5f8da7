#pragma once

#include <vector>

#include "base/time.hpp"
#include "buildcache/prune.hpp"
#include "proto/control.pb.h"
#include "solver/progress.hpp"

/// Our structs as messages of the Control service.
namespace gantry::builder {

pb::Timestamp to_message(Timestamp time);
/// In as many messages as it takes to keep each small enough for clients.
std::vector<moby::buildkit::v1::StatusResponse> to_messages(const solver::StatusBatch& batch);
moby::buildkit::v1::UsageRecord to_message(const buildcache::UsageRecord& record);
buildcache::PruneOptions to_options(const moby::buildkit::v1::PruneRequest& request);

}  // namespace gantry::builder
