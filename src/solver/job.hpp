#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "buildcache/snapshots.hpp"
#include "llb/definition.hpp"
#include "solver/operation.hpp"
#include "solver/progress.hpp"

namespace gantry::solver {

class StatusReader;
class ProgressLog;
class JobGraph;

struct JobOptions {
  std::vector<std::string> sessions{};
  Entitlements entitlements{};
  /// BuildKit's limits on a step's output; 0: none. What is beyond is replaced by a line that says so.
  std::int64_t log_size = 2 << 20;
  std::int64_t log_speed = 200 << 10;  // bytes in a second
};

/// A client's build (SolveRequest.Ref): its progress, for any number of readers, and its results while it lasts.
/// Thread-safe.
class Job {
 public:
  Job(std::string ref, JobOptions options);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  const std::string& ref() const noexcept { return ref_; }
  const JobOptions& options() const noexcept { return options_; }
  const SessionGroup& sessions() const noexcept { return sessions_; }
  /// Asking it to stop ends everything that runs only for this job.
  std::stop_source& stop() noexcept { return stop_; }

  /// Vertices of the job that are no step of a graph. `started` now; complete() with the error's text, if any.
  /// Several starts of the same digest are intervals of one line.
  std::shared_ptr<Progress> start_vertex(const std::string& digest, const std::string& name);
  void complete_vertex(const std::string& digest, const std::string& error = {});
  /// Where to tell about a vertex that was started.
  std::shared_ptr<Progress> progress_of(const std::string& digest);

  /// Reads from the start of the job. Batches come at most once in `interval`.
  std::unique_ptr<StatusReader> read(std::chrono::milliseconds interval = std::chrono::milliseconds(100));

  /// Everything is decided: vertices that are still running end with "context canceled", readers get what is left and
  /// then the end. No work may be started any more. The job's results are no longer held.
  void finish();
  bool finished() const;
  /// Waits until every reader there is has read the end. False if that took longer.
  bool wait_drained(std::chrono::milliseconds timeout) const;

  /// For the solver.
  ProgressLog& log() noexcept { return *log_; }
  JobGraph& graph() noexcept { return *graph_; }

 private:
  const std::string ref_;
  const JobOptions options_;
  SessionGroup sessions_;
  std::stop_source stop_;
  std::shared_ptr<ProgressLog> log_;
  std::unique_ptr<JobGraph> graph_;
};
using JobPtr = std::shared_ptr<Job>;

/// A reader of a job's progress. For one thread. May outlive the job.
class StatusReader {
 public:
  explicit StatusReader(std::shared_ptr<ProgressLog> log, std::chrono::milliseconds interval);
  ~StatusReader();
  StatusReader(const StatusReader&) = delete;
  StatusReader& operator=(const StatusReader&) = delete;
  /// Blocks until something happened; nullopt at the end of the job, or when `stop` is requested.
  std::optional<StatusBatch> next(std::stop_token stop);

 private:
  std::shared_ptr<ProgressLog> log_;
  std::chrono::milliseconds interval_;
  std::uint64_t position_ = 0;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace gantry::solver
