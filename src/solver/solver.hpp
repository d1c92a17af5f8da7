#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "buildcache/cache.hpp"
#include "llb/definition.hpp"
#include "solver/job.hpp"
#include "solver/operation.hpp"

namespace gantry::solver {

/// An exit status of a process that made a step fail, for the client's own exit status. Thrown by operations.
class ExitError : public Error {
 public:
  ExitError(int code, std::string message) : Error(Errc::internal, std::move(message)), exit_code_(code) {}
  int exit_code() const noexcept { return exit_code_; }

 private:
  int exit_code_;
};

/// The error of a step, and which step it was.
class SolveError : public Error {
 public:
  /// `error` may be an ExitError. `definition` says where the step was written.
  SolveError(const Error& error, std::string vertex, const llb::Definition& definition);
  /// Digest.
  const std::string& vertex() const noexcept { return vertex_; }
  const std::optional<int>& exit_code() const noexcept { return exit_code_; }
  /// Where the step was written: places()[i] is in files()[i]. Empty if the definition does not say.
  const std::vector<pb::SourceInfo>& files() const noexcept { return files_; }
  const std::vector<pb::Location>& places() const noexcept { return places_; }

 private:
  std::string vertex_;
  std::optional<int> exit_code_;
  std::vector<pb::SourceInfo> files_;
  std::vector<pb::Location> places_;
};

struct SolverOptions {
  /// How many steps execute at the same time. 0: twice the processors, at least 16, because most steps wait for disks
  /// and networks.
  std::size_t parallelism = 0;
  /// What stands before "::<id>" in the text of a checksum that failed.
  std::string worker_id = "moby";
};

/// Executes build graphs: only what is needed, what is independent at the same time, and nothing that the cache has.
/// Steps with the same key that run for several jobs at once are one execution, which ends when nobody waits for it.
/// Thread-safe. Jobs and solves must have ended before it is destroyed.
class Solver {
 public:
  Solver(buildcache::Cache& cache, OperationFactory factory, SolverOptions options = {});
  ~Solver();
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  /// Throws conflict `job <ref> exists`.
  JobPtr create_job(const std::string& ref, JobOptions options);
  /// The job, when there is one. Throws not_found `no such job <ref>` after `timeout`, cancelled when stopped.
  JobPtr wait_job(const std::string& ref, std::chrono::milliseconds timeout, std::stop_token stop = {});
  /// Nobody finds it any more. Stops it; who holds it may go on reading its progress.
  void discard_job(const std::string& ref);
  std::size_t job_count() const;

  /// The definition's result; nullptr is scratch. Blocks; ends with Error(cancelled) within two seconds of a stop of
  /// the token or the job. Throws SolveError for a step that failed. May be called again and at the same time in a job:
  /// what is done is done. The results are held until the job is finished.
  buildcache::SnapshotPtr solve(const JobPtr& job, const llb::Definition& definition, std::stop_token stop = {});

  /// Shows a piece of work as a vertex of its own in the job's progress: "exporting to image",
  /// "[internal] load build definition from Dockerfile". What `work` throws ends the vertex and goes on.
  template <class Work>
  static auto run_vertex(Job& job, const std::string& name, const std::string& digest, Work&& work) {
    const std::shared_ptr<Progress> progress = job.start_vertex(digest, name);
    VertexEnd end{job, digest, {}};
    try {
      return std::forward<Work>(work)(*progress);
    } catch (const Error& e) {
      end.error = e.message();
      throw;
    }
  }

 private:
  struct VertexEnd {
    Job& job;
    const std::string& digest;
    std::string error;
    ~VertexEnd() { job.complete_vertex(digest, error); }
  };
  struct Parts;
  std::shared_ptr<Parts> parts_;
};

}  // namespace gantry::solver
