#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "buildcache/snapshots.hpp"
#include "builder/exporters.hpp"
#include "builder/services.hpp"
#include "frontend/options.hpp"
#include "llb/definition.hpp"
#include "proto/gateway.pb.h"
#include "solver/job.hpp"

namespace gantry::builder {

/// What a client asks for with Control.Solve.
struct BuildRequest {
  std::string ref;      // the client's name of the build
  std::string session;  // of the client; may come later than the request
  /// Empty: `definition` is the build. Empty, too: the client itself plays the frontend, through the bridge.
  std::string frontend;
  frontend::OptionMap options;
  pb::Definition definition;
  std::map<std::string, pb::Definition> inputs;
  std::vector<ExporterRequest> exporters;
  std::vector<std::string> entitlements;
  bool internal = false;
};

/// One build while it lasts: what a frontend does for it (LLBBridge), and its results. Thread-safe.
class Build {
 public:
  Build(const Services& services, solver::JobPtr job, BuildRequest request);

  const BuildRequest& request() const noexcept { return request_; }
  const solver::JobPtr& job() const noexcept { return job_; }

  /// LLBBridge/Solve: runs a frontend, or takes a graph. Nothing of the result is executed, unless asked for.
  moby::buildkit::v1::frontend::Result solve(const moby::buildkit::v1::frontend::SolveRequest& request,
                                             std::stop_token stop);
  /// Executes the result that solve() gave this name. "" is the empty tree. Throws not_found for an unknown one.
  buildcache::SnapshotPtr evaluate(const std::string& ref, std::stop_token stop);
  /// LLBBridge/ResolveImageConfig.
  moby::buildkit::v1::frontend::ResolveImageConfigResponse resolve_image(
      const moby::buildkit::v1::frontend::ResolveImageConfigRequest& request, std::stop_token stop);
  const std::map<std::string, pb::Definition>& inputs() const noexcept { return request_.inputs; }

  /// LLBBridge/Warn.
  void warn(const moby::buildkit::v1::frontend::WarnRequest& request);
  /// LLBBridge/Return: the frontend is through. Later ones do not count.
  void return_result(moby::buildkit::v1::frontend::ReturnRequest result);

  /// Everything from the frontend to the exporters. Blocks as long as the build lasts. Throws what fails it.
  std::map<std::string, std::string> run(std::stop_token stop);

 private:
  using Result = moby::buildkit::v1::frontend::Result;
  Result solve_dockerfile(const frontend::OptionMap& options, const std::map<std::string, pb::Definition>& inputs,
                          std::stop_token stop);
  moby::buildkit::v1::frontend::Ref add_ref(const pb::Definition& definition);
  Result own_result(std::stop_token stop);
  Result await_return(std::stop_token stop);
  std::map<std::string, std::string> export_result(const Result& result, std::stop_token stop);

  const Services services_;
  const solver::JobPtr job_;
  const BuildRequest request_;

  std::mutex mutex_;
  std::condition_variable_any returned_changed_;
  std::map<std::string, llb::Definition> refs_;
  std::optional<moby::buildkit::v1::frontend::ReturnRequest> returned_;
};

}  // namespace gantry::builder
