#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/task.hpp"
#include "build/answers.hpp"
#include "build/leases.hpp"
#include "build/worker.hpp"
#include "engine/services.hpp"
#include "image/transfers.hpp"
#include "protocol/build_link.hpp"

namespace gantry::build {

/// The daemon's side of builds: they run in gantry-build, a process of its own (see Worker), which gets its clients'
/// connections from here and asks for what is the daemon's alone: images, layers, networks. Loop thread.
class Builds {
 public:
  using EngineId = std::function<std::string()>;

  /// `program`: gantry-build; empty if it is not installed.
  Builds(engine::Services& services, db::Db& db, image::Transfers& transfers, sys::Path program, EngineId id);
  ~Builds();

  /// Ends what a former daemon's worker left, and holds the layers of the build cache. After the stores' recover(),
  /// before anything may be removed from them.
  Task<void> recover();
  /// Cancels the builds that run. What the cache has stays.
  Task<void> stop();

  /// Throws not_implemented if gantry-build is not installed.
  void require_installed() const;
  /// False while there has never been a build: then there is nothing to ask the worker about.
  bool has_cache() const;
  bool is_running() const noexcept { return worker_.is_running(); }
  /// A connection becomes the worker's. Throws unavailable.
  Task<void> hand_over(protocol::Handover request, sys::Fd fd);
  /// What the cache held when the worker last told.
  const protocol::UsageReport& usage() const noexcept { return usage_; }

 private:
  protocol::BuildSettings settings() const;
  WorkerOptions worker_options() const;
  std::string cgroup() const;
  Task<void> ended();

  engine::Services& services_;
  const sys::Path program_;
  EngineId id_;
  bool has_cache_ = false;
  protocol::UsageReport usage_;
  Leases leases_;
  Answers answers_;
  Worker worker_;
};

}  // namespace gantry::build
