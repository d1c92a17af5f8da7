#include "solver/solver.hpp"

#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "solver/evaluation.hpp"
#include "solver/execution.hpp"
#include "solver/graph.hpp"
#include "solver/progress_log.hpp"
#include "solver/threads.hpp"

namespace gantry::solver {

SolveError::SolveError(const Error& error, std::string vertex, const llb::Definition& definition)
    : Error(error), vertex_(std::move(vertex)) {
  if (const auto* exit = dynamic_cast<const ExitError*>(&error)) exit_code_ = exit->exit_code();
  const pb::Locations* places = definition.locations(vertex_);
  if (places == nullptr) return;
  const pb::Source& source = definition.message().source();
  for (const pb::Location& place : places->locations()) {
    if (place.source_index() < 0 || place.source_index() >= source.infos_size()) continue;
    files_.push_back(source.infos(place.source_index()));
    places_.push_back(place);
  }
}

struct Solver::Parts {
  Parts(buildcache::Cache& cache_, OperationFactory factory_, SolverOptions options_)
      : cache(cache_),
        factory(std::move(factory_)),
        options(std::move(options_)),
        executions(options.parallelism, cache.index()) {}

  buildcache::Cache& cache;
  const OperationFactory factory;
  const SolverOptions options;
  mutable std::mutex mutex;
  std::condition_variable_any changed;
  std::map<std::string, JobPtr> jobs;
  Executions executions;  // last: its end waits for all that runs
};

Solver::Solver(buildcache::Cache& cache, OperationFactory factory, SolverOptions options)
    : parts_(std::make_shared<Parts>(cache, std::move(factory), std::move(options))) {}

Solver::~Solver() = default;

JobPtr Solver::create_job(const std::string& ref, JobOptions options) {
  auto job = std::make_shared<Job>(ref, std::move(options));
  const std::lock_guard lock(parts_->mutex);
  if (!parts_->jobs.emplace(ref, job).second) throw Error(Errc::conflict, fmt::format("job {} exists", ref));
  parts_->changed.notify_all();
  return job;
}

JobPtr Solver::wait_job(const std::string& ref, std::chrono::milliseconds timeout, std::stop_token stop) {
  std::unique_lock lock(parts_->mutex);
  JobPtr found;
  const auto is_there = [&] {
    const auto it = parts_->jobs.find(ref);
    if (it != parts_->jobs.end()) found = it->second;
    return found != nullptr;
  };
  if (parts_->changed.wait_for(lock, stop, timeout, is_there)) return found;
  require_running(stop);
  throw Error(Errc::not_found, fmt::format("no such job {}", ref));
}

void Solver::discard_job(const std::string& ref) {
  JobPtr job;  // may end here, without the mutex
  {
    const std::lock_guard lock(parts_->mutex);
    const auto it = parts_->jobs.find(ref);
    if (it == parts_->jobs.end()) return;
    job = std::move(it->second);
    parts_->jobs.erase(it);
  }
  job->stop().request_stop();
}

std::size_t Solver::job_count() const {
  const std::lock_guard lock(parts_->mutex);
  return parts_->jobs.size();
}

buildcache::SnapshotPtr Solver::solve(const JobPtr& job, const llb::Definition& definition, std::stop_token stop) {
  if (!definition.head().vertex) return nullptr;
  job->log().announce(definition);
  const LinkedStop both(stop, job->stop().get_token());
  const std::stop_token token = both.token();
  require_running(token);

  buildcache::SnapshotPtr result;
  std::exception_ptr error;
  {
    // Graphs may be deep, the caller's stack may not.
    const DeepThread thread([&] {
      try {
        std::vector<NodePtr> nodes;
        const NodePtr head = job->graph().add(definition, parts_->factory, nodes);
        Evaluation evaluation(parts_->cache, parts_->executions, parts_->options, *job);
        evaluation.map_all(nodes, token);
        job->graph().name_all(nodes);
        result = evaluation.evaluate(head, token).at(static_cast<std::size_t>(definition.head().index));
      } catch (const std::exception&) {
        error = std::current_exception();
      }
    });
  }
  if (error) std::rethrow_exception(error);
  return result;
}

}  // namespace gantry::solver
