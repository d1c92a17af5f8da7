#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "llb/definition.hpp"
#include "solver/job.hpp"
#include "solver/progress.hpp"

namespace gantry::solver {

/// Everything that a job told, bounded, for readers that come at any time. Thread-safe.
class ProgressLog : public std::enable_shared_from_this<ProgressLog> {
 public:
  /// After `stop` nothing waits for readers any more.
  ProgressLog(const JobOptions& options, std::stop_token stop)
      : log_size_(options.log_size), log_speed_(options.log_speed), stop_(std::move(stop)) {}

  /// Announces the steps of a graph, before any of them starts. Known ones are left alone.
  void announce(const llb::Definition& definition);
  /// A vertex runs from now on. Of its inputs those that did not run were cached.
  void start(const std::string& digest, bool cached = false, const std::string& name = {});
  /// The end of what start() began, if it did; statuses of the vertex that are open end, too.
  void complete(const std::string& digest, const std::string& error = {});
  std::shared_ptr<Progress> progress(const std::string& digest);
  void finish();
  bool finished() const;

  /// See StatusReader. `position` is the reader's, 0 at first.
  std::optional<StatusBatch> read(std::uint64_t& position, std::chrono::steady_clock::time_point not_before,
                                  const std::stop_token& stop);
  void add_reader(const std::uint64_t* position);
  void remove_reader(const std::uint64_t* position);
  bool wait_drained(std::chrono::milliseconds timeout) const;

 private:
  friend class VertexProgress;
  friend class VertexStatus;
  struct Vertex {
    VertexUpdate state;
    std::int64_t log_bytes = 0;
    std::chrono::steady_clock::time_point log_began;
    bool clipping = false;
    int running = 0;  // starts without their ends
  };
  struct VertexEvent {
    std::uint64_t number;
    const Vertex* vertex;
    bool cached;
    std::optional<Timestamp> started, completed;
    std::string error;
  };
  struct LogEvent {
    std::uint64_t number;
    LogUpdate update;
  };
  struct StatusSlot {
    std::uint64_t number = 0;
    StatusUpdate update;
  };
  Vertex& vertex(const std::string& digest, const std::string& name);
  void note(Vertex& vertex);
  void mark_inputs_cached(const Vertex& vertex, Timestamp when);
  void log(const std::string& digest, int stream, std::string_view bytes);
  std::string clip(Vertex& vertex, std::string_view bytes) const;
  void make_room(std::unique_lock<std::mutex>& lock);
  bool somebody_lags() const;
  void warn(const std::string& digest, Warning warning);
  std::shared_ptr<Progress::Status> add_status(const std::string& digest, std::string id, std::string name);
  StatusBatch collect(std::uint64_t after) const;

  const std::int64_t log_size_, log_speed_;
  const std::stop_token stop_;
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  mutable std::condition_variable_any read_;
  std::uint64_t last_ = 0;  // number of the last event
  bool finished_ = false;
  std::map<std::string, Vertex> vertices_;
  std::deque<VertexEvent> vertex_events_;
  std::deque<LogEvent> logs_;
  std::int64_t retained_ = 0;  // bytes in logs_
  std::vector<std::pair<std::uint64_t, WarningUpdate>> warnings_;
  std::deque<StatusSlot> statuses_;
  std::set<const std::uint64_t*> readers_;
};

}  // namespace gantry::solver
