#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "buildcache/index.hpp"
#include "solver/graph.hpp"
#include "solver/job.hpp"
#include "solver/operation.hpp"
#include "solver/progress_log.hpp"
#include "solver/shared_progress.hpp"

namespace gantry::solver {

/// The executions that run now. Equal ones, by key, of several jobs are one.
class Executions {
 public:
  Executions(std::size_t parallelism, buildcache::CacheIndex& index);
  /// Waits for the end of all.
  ~Executions();
  Executions(const Executions&) = delete;
  Executions& operator=(const Executions&) = delete;

  /// Executes the vertex for this job, or waits with the others. The results are stored under the key before anybody
  /// hears of them; an empty key is shared with nobody and not stored. `shareable` is whether an execution that began
  /// for somebody else will do. Throws what the operation throws, and cancelled when stopped; if nobody else waits,
  /// that is when the execution has ended.
  Results run(Job& job, const NodePtr& node, const std::string& key, bool shareable, Results inputs,
              const std::stop_token& stop);

 private:
  struct Execution;
  using ExecutionPtr = std::shared_ptr<Execution>;
  void start(const ExecutionPtr& execution);
  void execute(Execution& execution);
  Results make(Execution& execution, bool& has_slot, bool& cached);
  std::shared_ptr<Progress> attach(Execution& execution, Job& job, const std::string& digest);
  Results wait(const ExecutionPtr& execution, Job& job, const std::string& digest, const std::stop_token& stop);
  void acquire_slot(const std::stop_token& stop);

  const std::size_t parallelism_;
  buildcache::CacheIndex& index_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, ExecutionPtr> running_;  // those that can be shared
  std::size_t threads_ = 0;
  std::size_t slots_used_ = 0;
};

}  // namespace gantry::solver
