#pragma once

#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>

#include "buildcache/cache.hpp"
#include "buildlink/engine.hpp"

namespace gantry::builder {

/// Tells the daemon what the build cache holds, in a thread of its own, so that reading it there needs no worker.
class UsageReporter {
 public:
  UsageReporter(buildcache::Cache& cache, buildlink::Engine& engine);
  /// Something has changed: to be told soon. Several pokes are one report.
  void poke();
  /// The last report, now.
  void report();

 private:
  void run(std::stop_token stop);

  buildcache::Cache& cache_;
  buildlink::Engine& engine_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool poked_ = false;
  std::jthread thread_;
};

}  // namespace gantry::builder
