#pragma once

#include <stop_token>

#include "buildcache/cache.hpp"
#include "buildlink/link.hpp"

namespace gantry::builder {

/// `POST /build/prune`: removes what its parameters say (Docker's API reference) and answers with what that was.
/// Throws invalid_argument before the reply has begun.
void serve_prune(buildcache::Cache& cache, buildlink::Engine& engine, const buildlink::Incoming& incoming,
                 buildlink::Exchange& exchange);

/// The settings' garbage collection, for a cache on a disk of this size.
std::vector<buildcache::PruneOptions> gc_policies_of(const buildlink::Settings& settings, std::int64_t disk_size);

}  // namespace gantry::builder
