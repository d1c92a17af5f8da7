#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "buildcache/cache.hpp"
#include "solver/execution.hpp"
#include "solver/graph.hpp"
#include "solver/job.hpp"
#include "solver/solver.hpp"

namespace gantry::solver {

/// Finds or makes the results of a job's nodes.
///
/// Every result has up to two keys. The *definition key* says how it came about: the operation and the definition keys
/// of its inputs. It costs nothing, so it is tried first; what comes from a client's directory has none that means
/// anything. The *content key* has, for inputs of which only the content counts, digests of that content instead, for
/// which these inputs must be there. A result is stored under both, and the definition key also leads to the content
/// key (a link), so that later keys can be made without making the inputs again.
class Evaluation {
 public:
  Evaluation(buildcache::Cache& cache, Executions& executions, const SolverOptions& options, Job& job)
      : cache_(cache), executions_(executions), options_(options), job_(job) {}

  /// Asks all operations what they depend on; sources at the same time.
  void map_all(const std::vector<NodePtr>& nodes, const std::stop_token& stop);
  /// The results, from the cache or made. Throws SolveError, or Error(cancelled).
  const Results& evaluate(const NodePtr& node, const std::stop_token& stop);

 private:
  const std::string& content_key(const NodePtr& node, const std::stop_token& stop);
  std::string make_content_key(const NodePtr& node, const std::stop_token& stop);
  std::string input_part(const NodePtr& node, std::size_t input, const std::stop_token& stop);
  bool goes_by_content(const NodePtr& node, std::size_t input) const;
  Results find_or_make(const NodePtr& node, const std::stop_token& stop);
  std::optional<Results> find(const NodePtr& node, const std::string& key);
  std::optional<Results> find_with_content(const NodePtr& node, const std::stop_token& stop);
  Results make(const NodePtr& node, const std::stop_token& stop);
  void remember(const NodePtr& node, const std::string& key, const Results& results);
  void show_cached(const NodePtr& node);
  CacheMap ask_map(const NodePtr& node, const std::stop_token& stop);
  template <class Body>
  auto in_step(const NodePtr& node, const std::stop_token& stop, Body&& body);

  buildcache::Cache& cache_;
  Executions& executions_;
  const SolverOptions& options_;
  Job& job_;
};

/// Stores each of the results under the key.
void store_results(buildcache::CacheIndex& index, const std::string& key, const Results& results);
/// All of them, or nothing.
std::optional<Results> find_results(buildcache::CacheIndex& index, const std::string& key, std::int64_t outputs);

}  // namespace gantry::solver
