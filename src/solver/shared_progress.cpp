#include "solver/shared_progress.hpp"

#include <algorithm>
#include <utility>

namespace gantry::solver {
namespace {

constexpr std::size_t kReplayed = 2 << 20;
constexpr std::size_t kMostWarnings = 100;

}  // namespace

/// A status in every job that is attached.
class SharedProgress::SharedStatus final : public Progress::Status {
 public:
  SharedStatus(std::string id, std::string name) : id_(std::move(id)), name_(std::move(name)) {}
  ~SharedStatus() override { complete(); }

  void update(std::int64_t current, std::int64_t total) override {
    const std::lock_guard lock(mutex_);
    current_ = current;
    total_ = total;
    for (const auto& [target, status] : statuses_) status->update(current, total);
  }
  void complete() override {
    const std::lock_guard lock(mutex_);
    complete_ = true;
    for (const auto& [target, status] : statuses_) status->complete();
  }
  void attach(const std::shared_ptr<Progress>& target) {
    const std::lock_guard lock(mutex_);
    auto status = target->status(id_, name_);
    if (current_ != 0 || total_ != 0) status->update(current_, total_);
    if (complete_) status->complete();
    statuses_.emplace_back(target.get(), std::move(status));
  }
  void detach(const Progress* target) {
    const std::lock_guard lock(mutex_);
    std::erase_if(statuses_, [&](const auto& entry) { return entry.first == target; });
  }

 private:
  const std::string id_, name_;
  std::mutex mutex_;
  std::int64_t current_ = 0, total_ = 0;
  bool complete_ = false;
  std::vector<std::pair<const Progress*, std::shared_ptr<Progress::Status>>> statuses_;
};

void SharedProgress::log(int stream, std::string_view bytes) {
  std::vector<std::shared_ptr<Progress>> told;
  {
    const std::lock_guard lock(mutex_);
    if (bytes_ < kReplayed) {
      const std::string_view kept = bytes.substr(0, kReplayed - bytes_);
      bytes_ += kept.size();
      lines_.push_back({stream, std::string(kept)});
    }
    told = targets_;
  }
  for (const auto& target : told) target->log(stream, bytes);
}

std::shared_ptr<Progress::Status> SharedProgress::status(std::string id, std::string name) {
  auto status = std::make_shared<SharedStatus>(std::move(id), std::move(name));
  const std::lock_guard lock(mutex_);
  for (const auto& target : targets_) status->attach(target);
  std::erase_if(statuses_, [](const auto& known) { return known.expired(); });
  statuses_.push_back(status);
  return status;
}

void SharedProgress::warn(Warning warning) {
  const std::lock_guard lock(mutex_);
  for (const auto& target : targets_) target->warn(warning);
  if (warnings_.size() < kMostWarnings) warnings_.push_back(std::move(warning));
}

void SharedProgress::attach(const std::shared_ptr<Progress>& target) {
  const std::lock_guard lock(mutex_);
  for (const Line& line : lines_) target->log(line.stream, line.bytes);
  for (const Warning& warning : warnings_) target->warn(warning);
  for (const auto& known : statuses_)
    if (const auto status = known.lock()) status->attach(target);
  targets_.push_back(target);
}

void SharedProgress::detach(const std::shared_ptr<Progress>& target) {
  const std::lock_guard lock(mutex_);
  for (const auto& known : statuses_)
    if (const auto status = known.lock()) status->detach(target.get());
  std::erase(targets_, target);
}

}  // namespace gantry::solver
