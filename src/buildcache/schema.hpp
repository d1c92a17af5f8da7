#pragma once

#include <vector>

namespace gantry::buildcache {

/// The steps of cache.db's schema. As db::migrations(): a released step never changes.
const std::vector<std::vector<const char*>>& cache_schema();

}  // namespace gantry::buildcache
