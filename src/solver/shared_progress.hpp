#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "solver/progress.hpp"

namespace gantry::solver {

/// The progress of a step that several jobs wait for: each is told everything, also what came before it joined.
class SharedProgress final : public Progress {
 public:
  void log(int stream, std::string_view bytes) override;
  std::shared_ptr<Status> status(std::string id, std::string name) override;
  void warn(Warning warning) override;

  void attach(const std::shared_ptr<Progress>& target);
  void detach(const std::shared_ptr<Progress>& target);

 private:
  class SharedStatus;
  struct Line {
    int stream;
    std::string bytes;
  };

  std::mutex mutex_;
  std::vector<std::shared_ptr<Progress>> targets_;
  std::deque<Line> lines_;  // of the first two mebibytes, which is what a job shows of a step
  std::size_t bytes_ = 0;
  std::vector<std::weak_ptr<SharedStatus>> statuses_;
  std::vector<Warning> warnings_;
};

}  // namespace gantry::solver
