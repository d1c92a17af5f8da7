#pragma once

#include <string>

namespace gantry::buildcache {
class Cache;
}
namespace gantry::buildlink {
class Engine;
}
namespace gantry::buildops {
struct Services;
}
namespace gantry::session {
class Sessions;
}
namespace gantry::solver {
class Solver;
}

namespace gantry::builder {

/// What builds work with. All of it outlives every build.
struct Services {
  buildcache::Cache& cache;
  solver::Solver& solver;
  session::Sessions& sessions;
  buildlink::Engine& engine;
  const buildops::Services& operations;
};

}  // namespace gantry::builder
