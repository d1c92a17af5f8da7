#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "async/signal.hpp"
#include "async/task.hpp"
#include "async/task_group.hpp"

namespace gantry::engine {

/// How much directories take that only a walk can tell: containers' own files, volumes. Results are kept for a short
/// while, simultaneous questions share one walk, and few walks run at a time.
class SizeCache {
 public:
  explicit SizeCache(boost::asio::any_io_executor loop) : walks_(std::move(loop)) {}

  /// A directory, by a name of its own, and how to walk it (in a lane).
  struct Subject {
    std::string name;
    std::function<Task<std::uint64_t>()> walk;
  };
  /// Bytes by name, at most `max_age` old. What is not measured within `limit` has its last known value, or none.
  Task<std::map<std::string, std::uint64_t>> measure(std::vector<Subject> subjects, std::chrono::milliseconds max_age,
                                                     std::chrono::milliseconds limit);

 private:
  struct Entry {
    std::optional<std::uint64_t> bytes;
    std::chrono::steady_clock::time_point at{};
    bool walking = false;
  };
  using EntryPtr = std::shared_ptr<Entry>;
  EntryPtr entry(const std::string& name);
  void begin_walk(Subject subject, EntryPtr entry);
  Task<void> walk(Subject subject, EntryPtr entry);
  void drop_old();

  std::map<std::string, EntryPtr> entries_;
  unsigned walking_ = 0;
  async::Signal done_;  // a walk has ended
  async::TaskGroup walks_;
};

}  // namespace gantry::engine
