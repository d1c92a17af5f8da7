#pragma once

#include <string>

#include "solver/operation.hpp"
#include "sys/file.hpp"

namespace gantry::buildcache {
class Snapshots;
class Mutables;
class CacheIndex;
}  // namespace gantry::buildcache
namespace gantry::buildlink {
class Engine;
}
namespace gantry::runtime {
struct HostFacts;
}
namespace gantry::session {
class Sessions;
}

/// What the steps of a build do: sources, file operations, processes, merges. One object per step; the solver asks it
/// for its cache key and, on a miss, has it executed. Everything blocks and ends within a second of a stop.
namespace gantry::buildops {

/// What operations work with. All of it outlives every operation.
struct Services {
  buildcache::Snapshots& snapshots;
  buildcache::Mutables& mutables;
  buildcache::CacheIndex& index;
  session::Sessions& sessions;
  buildlink::Engine& engine;
  const runtime::HostFacts& facts;
  sys::Path work_directory;  // ours below <data-root>/buildkit: git's and http's copies survive there
  sys::Path run_directory;   // ours, on a tmpfs: bundles, sockets, secrets; emptied by recover_run_directory()
};

/// Makes the operation of a vertex. It throws invalid_argument for an operation that we do not know or whose fields
/// make no sense. `services` outlives the factory and its operations.
solver::OperationFactory make_operation_factory(Services& services);

/// Ends and removes what a killed worker has left: mounts below `run_directory`, containers' cgroups, files.
/// To be called before the first operation.
void recover_run_directory(const Services& services);

}  // namespace gantry::buildops
