#pragma once

#include <map>
#include <mutex>
#include <stop_token>
#include <string>

#include "builder/context_trees.hpp"
#include "builder/services.hpp"
#include "buildlink/link.hpp"

namespace gantry::builder {

/// The classic builds that run. Thread-safe.
class ClassicBuilds {
 public:
  ClassicBuilds(const Services& services, ContextTrees& trees) : services_(services), trees_(trees) {}

  /// Serves `POST /build` of version 1 from the first byte of the context to the last line of the reply. Blocks; one
  /// thread for each build. Throws nothing that the client is to know: it is told.
  void serve(buildlink::Incoming incoming);
  /// `POST /build/cancel`. Fine if there is none.
  void cancel(const std::string& build_id);
  /// All that run, at the end of the worker.
  void cancel_all() {
    const std::lock_guard lock(mutex_);
    for (auto& [id, stop] : running_) stop.request_stop();
  }
  std::size_t count() const;

 private:
  friend class ClassicBuild;
  const Services services_;
  ContextTrees& trees_;
  mutable std::mutex mutex_;
  std::map<std::string, std::stop_source> running_;  // by build id, or a name of ours
  std::uint64_t last_ = 0;
};

}  // namespace gantry::builder
