#pragma once

#include <string>

#include "api/versions.hpp"
#include "engine/stats.hpp"

namespace gantry::api {

/// What stays the same in all samples of one request.
struct StatsSubject {
  std::string id;
  std::string name;  // without the slash
  bool cgroup_v2 = false;
  std::uint64_t machine_memory = 0;  // the limit of containers that have none
};

/// One object of GET /containers/{id}/stats. `previous` default-constructed: there is none.
/// Source: engine-api.md §3.9.
std::string render_stats(const StatsSubject& subject, const engine::StatsSample& sample,
                         const engine::StatsSample& previous);

}  // namespace gantry::api
