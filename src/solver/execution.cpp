#include "solver/execution.hpp"

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "solver/evaluation.hpp"

namespace gantry::solver {

/// One execution and those who wait for it. Guarded by Executions::mutex_ where it does not say otherwise.
struct Executions::Execution {
  struct Waiter {
    Job* job;
    std::string digest;  // the same step may have several names
    std::shared_ptr<Progress> progress;
  };
  std::string key;
  bool shareable = false;
  llb::VertexPtr vertex;
  std::shared_ptr<Operation> operation;
  Results inputs;
  Entitlements entitlements;

  SharedProgress progress;  // thread-safe
  SessionGroup sessions;    // thread-safe
  std::stop_source stop;    // thread-safe

  std::vector<Waiter> waiters;
  bool started = false;
  bool done = false;
  bool cached = false;
  Results results;
  std::exception_ptr error;  // read by copying, see wait()
};

namespace {

/// What waiters throw: copies, because each adds to its own.
[[noreturn]] void throw_copy(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ExitError& e) {
    throw ExitError(e);
  } catch (const Error& e) {
    throw Error(e);
  }
}

}  // namespace

Executions::Executions(std::size_t parallelism, buildcache::CacheIndex& index)
    : parallelism_(parallelism != 0 ? parallelism : std::max<std::size_t>(16, 2 * std::thread::hardware_concurrency())),
      index_(index) {}

Executions::~Executions() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return threads_ == 0; });
}

/// With the mutex.
std::shared_ptr<Progress> Executions::attach(Execution& execution, Job& job, const std::string& digest) {
  auto progress = job.log().progress(digest);
  execution.waiters.push_back({&job, digest, progress});
  for (const std::string& id : job.options().sessions) execution.sessions.add(id);
  if (execution.started) job.log().start(digest);
  return progress;
}

Results Executions::run(Job& job, const NodePtr& node, const std::string& key, bool shareable, Results inputs,
                        const std::stop_token& stop) {
  require_running(stop);
  const std::string& digest = node->vertex->digest();
  ExecutionPtr execution;
  std::shared_ptr<Progress> progress;
  {
    const std::lock_guard lock(mutex_);
    const auto it = key.empty() || !shareable ? running_.end() : running_.find(key);
    // What another job may do and this one may not is not to be had by waiting for it.
    const bool joins = it != running_.end() && it->second->entitlements == job.options().entitlements;
    execution = joins ? it->second : std::make_shared<Execution>();
    if (!joins) {
      execution->key = key;
      execution->vertex = node->vertex;
      execution->operation = node->operation;
      execution->inputs = std::move(inputs);
      execution->entitlements = job.options().entitlements;
      execution->shareable = shareable && !key.empty() && it == running_.end();
      start(execution);
    }
    progress = attach(*execution, job, digest);
  }
  execution->progress.attach(progress);  // may wait for a slow reader of the job
  return wait(execution, job, digest, stop);
}

/// With the mutex.
void Executions::start(const ExecutionPtr& execution) {
  auto body = [this, mine = execution]() mutable {
    execute(*mine);
    // What it held goes before its end is told: whoever waits for that may then remove the cache.
    mine.reset();
    const std::lock_guard lock(mutex_);
    --threads_;
    changed_.notify_all();
  };
  try {
    std::thread(std::move(body)).detach();
  } catch (const std::system_error&) {
    throw Error(Errc::unavailable, "the builder cannot start another thread");
  }
  ++threads_;
  if (execution->shareable) running_[execution->key] = execution;
}

void Executions::acquire_slot(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, stop, [&] { return slots_used_ < parallelism_; }))
    throw Error(Errc::cancelled, "context canceled");
  ++slots_used_;
}

/// Executes the operation, unless another execution has just ended between the look-up and this one's begin.
Results Executions::make(Execution& execution, bool& has_slot, bool& cached) {
  if (execution.shareable) {
    if (auto found = find_results(index_, execution.key, execution.vertex->outputs())) {
      cached = true;
      return std::move(*found);
    }
  }
  const std::stop_token stop = execution.stop.get_token();
  if (execution.operation->is_work()) {
    acquire_slot(stop);
    has_slot = true;
  }
  {
    const std::lock_guard lock(mutex_);
    execution.started = true;
    for (const Execution::Waiter& waiter : execution.waiters) waiter.job->log().start(waiter.digest);
  }
  require_running(stop);
  OpContext context{execution.progress, stop, execution.sessions, execution.entitlements};
  Results results = execution.operation->execute(context, execution.inputs);
  require_running(stop);
  if (std::ssize(results) < execution.vertex->outputs())
    throw Error(Errc::internal,
                fmt::format("the step has {} results instead of {}", results.size(), execution.vertex->outputs()));
  if (!execution.key.empty()) store_results(index_, execution.key, results);
  return results;
}

void Executions::execute(Execution& execution) {
  bool has_slot = false;
  bool cached = false;
  Results results;
  std::exception_ptr error;
  try {
    results = make(execution, has_slot, cached);
  } catch (const Error&) {
    error = std::current_exception();
  } catch (const std::exception& e) {
    error = std::make_exception_ptr(Error(Errc::internal, e.what()));
  }
  const std::lock_guard lock(mutex_);
  if (has_slot) --slots_used_;
  const auto it = running_.find(execution.key);
  if (it != running_.end() && it->second.get() == &execution) running_.erase(it);
  execution.results = std::move(results);
  execution.error = std::move(error);
  execution.cached = cached;
  execution.done = true;
  changed_.notify_all();
}

Results Executions::wait(const ExecutionPtr& execution, Job& job, const std::string& digest,
                         const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [&] { return execution->done; });
  const bool left_early = !execution->done;
  auto& waiters = execution->waiters;
  if (left_early && waiters.size() == 1) {
    // Nobody else wants it, and nobody may join what is about to end.
    const auto it = running_.find(execution->key);
    if (it != running_.end() && it->second == execution) running_.erase(it);
    lock.unlock();  // a stop calls whoever listens to it
    execution->stop.request_stop();
    lock.lock();
    changed_.wait(lock, [&] { return execution->done; });
  }
  const auto mine = std::find_if(waiters.begin(), waiters.end(), [&](const Execution::Waiter& waiter) {
    return waiter.job == &job && waiter.digest == digest;
  });
  const std::shared_ptr<Progress> progress = mine->progress;
  waiters.erase(mine);
  for (const std::string& id : job.options().sessions) execution->sessions.remove(id);
  const std::exception_ptr error = execution->error;
  const bool cached = execution->cached;
  Results results = execution->results;
  lock.unlock();
  execution->progress.detach(progress);

  if (left_early || stop.stop_requested()) {
    job.log().complete(digest, "context canceled");
    throw Error(Errc::cancelled, "context canceled");
  }
  if (!error) {
    if (cached) job.log().start(digest, true);
    job.log().complete(digest);
    return results;
  }
  try {
    throw_copy(error);
  } catch (const Error& e) {
    job.log().complete(digest, e.message());
    throw;
  }
}

}  // namespace gantry::solver
