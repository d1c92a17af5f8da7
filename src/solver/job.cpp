#include "solver/job.hpp"

#include <algorithm>
#include <utility>

#include "solver/graph.hpp"
#include "solver/progress_log.hpp"

namespace gantry::solver {

void SessionGroup::add(const std::string& id) {
  const std::lock_guard lock(state_->mutex);
  state_->ids.push_back(id);
}

void SessionGroup::remove(const std::string& id) {
  const std::lock_guard lock(state_->mutex);
  const auto it = std::find(state_->ids.begin(), state_->ids.end(), id);
  if (it != state_->ids.end()) state_->ids.erase(it);
}

Job::Job(std::string ref, JobOptions options)
    : ref_(std::move(ref)),
      options_(std::move(options)),
      sessions_(options_.sessions),
      log_(std::make_shared<ProgressLog>(options_, stop_.get_token())),
      graph_(std::make_unique<JobGraph>()) {}

Job::~Job() { log_->finish(); }

std::shared_ptr<Progress> Job::start_vertex(const std::string& digest, const std::string& name) {
  log_->start(digest, false, name);
  return log_->progress(digest);
}

void Job::complete_vertex(const std::string& digest, const std::string& error) { log_->complete(digest, error); }

std::shared_ptr<Progress> Job::progress_of(const std::string& digest) { return log_->progress(digest); }

std::unique_ptr<StatusReader> Job::read(std::chrono::milliseconds interval) {
  return std::make_unique<StatusReader>(log_, interval);
}

void Job::finish() {
  log_->finish();
  graph_->clear();
}
bool Job::finished() const { return log_->finished(); }
bool Job::wait_drained(std::chrono::milliseconds timeout) const { return log_->wait_drained(timeout); }

StatusReader::StatusReader(std::shared_ptr<ProgressLog> log, std::chrono::milliseconds interval)
    : log_(std::move(log)), interval_(interval) {
  log_->add_reader(&position_);
}

StatusReader::~StatusReader() { log_->remove_reader(&position_); }

std::optional<StatusBatch> StatusReader::next(std::stop_token stop) {
  auto batch = log_->read(position_, last_ + interval_, stop);
  last_ = std::chrono::steady_clock::now();
  return batch;
}

}  // namespace gantry::solver
