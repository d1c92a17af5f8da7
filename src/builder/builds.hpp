#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "builder/build.hpp"
#include "builder/services.hpp"

namespace gantry::builder {

/// The builds that run (buildkit.md, appendix A). Thread-safe.
class Builds {
 public:
  explicit Builds(const Services& services);
  /// The builds must have ended.
  ~Builds();
  Builds(const Builds&) = delete;
  Builds& operator=(const Builds&) = delete;

  /// One build from its beginning to its end, with its keys of SolveResponse. Throws what fails it; cancelled when
  /// stopped, after all that ran for it has ended. Readers of its progress that there are by then have all of it on
  /// return; if nobody asked for it yet, it is kept a few seconds longer.
  std::map<std::string, std::string> run(BuildRequest request, std::stop_token stop);

  /// The build of this name, as soon as it is there. Throws not_found `no such job X`, cancelled.
  std::shared_ptr<Build> wait(const std::string& ref, std::stop_token stop);
  /// The same for a reader of its progress, who comes at any time.
  std::unique_ptr<solver::StatusReader> read_progress(const std::string& ref, std::stop_token stop);

  std::size_t count() const;

 private:
  void check_entitlements(const BuildRequest& request) const;
  void end(const std::shared_ptr<Build>& build);
  void discard_late(const std::stop_token& stop);

  const Services services_;
  mutable std::mutex mutex_;
  std::condition_variable_any arrived_;
  std::map<std::string, std::shared_ptr<Build>> builds_;
  std::set<std::string> read_;  // of builds_: somebody reads the progress
  std::deque<std::pair<std::chrono::steady_clock::time_point, std::string>> unread_;  // ended, kept for late readers
  std::condition_variable_any unread_changed_;
  std::jthread late_;
};

}  // namespace gantry::builder
