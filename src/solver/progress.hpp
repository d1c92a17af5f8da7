#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"
#include "proto/ops.pb.h"

/// What builds tell about their steps. Source of the meanings: BuildKit's StatusResponse (buildkit.md §2.7).
namespace gantry::solver {

/// A finding of the frontend, shown with the vertex.
struct Warning {
  std::int64_t level = 1;
  std::string short_text{};
  std::vector<std::string> detail{};
  std::string url{};
  std::optional<pb::SourceInfo> info{};
  std::vector<pb::Range> ranges{};
};

/// Where a step tells what it does. Thread-safe; never fails.
class Progress {
 public:
  /// One line below a step with numbers that move: "transferring context:", "sha256:…". Completed when it is destroyed.
  class Status {
   public:
    virtual ~Status() = default;
    /// Bytes (or things) so far, and of how many: 0 if nobody knows.
    virtual void update(std::int64_t current, std::int64_t total = 0) = 0;
    virtual void complete() = 0;
  };

  virtual ~Progress() = default;
  /// Output of the step: 1 is its standard output, 2 its standard error. Any bytes, in pieces of any size.
  virtual void log(int stream, std::string_view bytes) = 0;
  /// `id` is what people see, unique within the step.
  virtual std::shared_ptr<Status> status(std::string id, std::string name = {}) = 0;
  virtual void warn(Warning warning) = 0;
};

/// A vertex as a reader gets it. Each update is whole and replaces the one before.
struct VertexUpdate {
  std::string digest;
  std::vector<std::string> inputs;
  std::string name;
  bool cached = false;
  std::optional<Timestamp> started;
  std::optional<Timestamp> completed;
  std::string error;
  std::optional<pb::ProgressGroup> group;
};

struct StatusUpdate {
  std::string id;
  std::string vertex;
  std::string name;
  std::int64_t current = 0;
  std::int64_t total = 0;
  Timestamp timestamp;
  Timestamp started;
  std::optional<Timestamp> completed;
};

struct LogUpdate {
  std::string vertex;
  Timestamp timestamp;
  int stream = 1;
  std::string bytes;
};

struct WarningUpdate {
  std::string vertex;
  Warning warning;
};

/// What happened since the last one.
struct StatusBatch {
  std::vector<VertexUpdate> vertices;
  std::vector<StatusUpdate> statuses;
  std::vector<LogUpdate> logs;
  std::vector<WarningUpdate> warnings;
  bool empty() const noexcept { return vertices.empty() && statuses.empty() && logs.empty() && warnings.empty(); }
};

}  // namespace gantry::solver
