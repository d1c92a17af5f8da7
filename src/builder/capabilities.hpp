#pragma once

#include <string>

#include "builder/services.hpp"
#include "proto/gateway.pb.h"
#include "proto/worker.pb.h"

namespace gantry::builder {

/// What LLBBridge/Ping tells: what a frontend may ask for, and which ops we execute (buildkit.md §2.11). Every entry
/// is an obligation: clients use what they see here.
void add_capabilities(moby::buildkit::v1::frontend::PongResponse& out);

/// The one worker that there is.
moby::buildkit::v1::types::WorkerRecord describe_worker(const Services& services);
moby::buildkit::v1::types::BuildkitVersion describe_version();

}  // namespace gantry::builder
