#pragma once

#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/time.hpp"
#include "buildcache/snapshots.hpp"
#include "builder/services.hpp"
#include "solver/job.hpp"

namespace gantry::builder {

/// Where a client wants a result: SolveRequest.Exporters.
struct ExporterRequest {
  std::string type;
  std::map<std::string, std::string> attributes;
};

/// What is exported.
struct BuildResult {
  buildcache::SnapshotPtr tree;    // nullptr: the empty tree
  std::string config;              // the image's, as the frontend made it; empty: there is none
  std::optional<Timestamp> epoch;  // SOURCE_DATE_EPOCH: the time of everything that the build made
};

/// Throws invalid_argument `exporter "x" could not be found`, and for attributes that make no sense. To be asked
/// before a build runs.
void check_exporter(const ExporterRequest& request);

/// Exports and says so in the job's progress. `index` is the exporter's place among those of the build, by which its
/// client knows it. The answer are keys of SolveResponse (buildkit.md §2.6).
std::map<std::string, std::string> run_exporter(const Services& services, solver::Job& job, const std::string& session,
                                                int index, const ExporterRequest& request, const BuildResult& result,
                                                std::stop_token stop);

}  // namespace gantry::builder
