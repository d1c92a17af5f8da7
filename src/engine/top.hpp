#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "async/task.hpp"
#include "engine/container_store.hpp"
#include "engine/lifecycle.hpp"
#include "engine/services.hpp"

namespace gantry::engine {

struct ProcessList {
  std::vector<std::string> titles;
  std::vector<std::vector<std::string>> processes;
};

/// What `ps <ps_args>` of the host says about a container's processes. Publishes `top`.
/// Throws not_found, conflict unless it runs, invalid_argument for arguments that ps does not take.
Task<ProcessList> list_processes(Services& services, ContainerStore& store, Lifecycle& lifecycle, std::string reference,
                                 std::string ps_args);

/// Refuses what would make another column look like the process id's, and so show processes of others.
void validate_ps_args(const std::vector<std::string>& args);
/// Keeps the rows of `pids`. Throws internal `Couldn't find PID field in ps output`.
ProcessList parse_ps(std::string_view output, const std::set<pid_t>& pids);

}  // namespace gantry::engine
