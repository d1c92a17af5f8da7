#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "builder/classic_stream.hpp"
#include "solver/job.hpp"

namespace gantry::builder {

/// Shows a job's progress as the classic builder does: the output of commands as it comes, "Running in" before it.
class ClassicWatch {
 public:
  ClassicWatch(solver::Job& job, ClassicStream& stream);
  /// Ends the watching.
  ~ClassicWatch();
  ClassicWatch(const ClassicWatch&) = delete;
  ClassicWatch& operator=(const ClassicWatch&) = delete;

  struct Step {
    bool cached = false;
    std::string container;  // 12 digits that stand for what ran; empty: nothing was shown
  };
  /// From now on this vertex is the step that runs; `announce`: it is shown as a container.
  void begin(const std::string& vertex, bool announce);
  /// Waits until all that the step wrote has been shown. The step must have ended.
  Step end();

 private:
  void run(std::stop_token stop);
  void show(const solver::StatusBatch& batch);

  solver::Job& job_;
  ClassicStream& stream_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string vertex_;
  bool announce_ = false;
  Step step_;
  struct Seen {
    bool completed = false;
    bool cached = false;
  };
  std::map<std::string, Seen> seen_;
  bool ended_ = false;
  std::jthread thread_;
};

/// Twelve digits that stand for a container which nobody can look at.
std::string make_container_name();

}  // namespace gantry::builder
