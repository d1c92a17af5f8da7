#pragma once

#include "api/router.hpp"

namespace gantry::api {

/// What this engine does not do (Swarm, managed plugins, checkpoints, builds): each route answers with Docker's status
/// and a text that says so. To be added before the routes of containers, whose patterns would take some of these.
void add_unsupported_routes(Router& router);

}  // namespace gantry::api
