#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "solver/progress.hpp"
#include "sys/cgroup.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {

/// A container that is run to its end by an OCI runtime (`runc run`).
struct ContainerRun {
  std::string id;
  std::string runtime;                    // program
  std::vector<std::string> runtime_args;  // global ones
  sys::Path state_directory;              // the runtime's --root
  sys::Path bundle;                       // holds config.json
  std::string cgroup;                     // "/docker/…/<id>"
};

/// Runs it with nothing on its standard input; what it prints goes to `progress` as streams 1 and 2. Returns the exit
/// status, 128 + n after a signal. When it returns or throws, no process of the container is left.
/// Blocks. Throws cancelled within a second of a stop, having killed everything; Error if the runtime cannot be
/// started.
int run_container(const ContainerRun& run, solver::Progress& progress, const sys::CgroupLayout& cgroups,
                  std::stop_token stop);

/// Ends and forgets a container that may be there.
void remove_container(const ContainerRun& run, const sys::CgroupLayout& cgroups);

}  // namespace gantry::buildops
