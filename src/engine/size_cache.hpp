#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/signal.hpp"
#include "async/task.hpp"
#include "async/task_group.hpp"
#include "engine/container.hpp"
#include "engine/services.hpp"

namespace gantry::engine {

/// How much containers' own files take. Measuring walks a directory in the bulk lane, so results are kept for a short
/// while, simultaneous questions share one walk, and few walks run at a time.
class SizeCache {
 public:
  explicit SizeCache(Services& services) : services_(services), walks_(services.loop) {}

  /// Bytes allocated in each container's upper directory, by container id, at most `max_age` old. What is not measured
  /// within `limit` has its last known value, or none.
  Task<std::map<std::string, std::uint64_t>> measure(std::vector<ContainerPtr> containers,
                                                     std::chrono::milliseconds max_age,
                                                     std::chrono::milliseconds limit);

 private:
  struct Entry {
    std::optional<std::uint64_t> bytes;
    std::chrono::steady_clock::time_point at{};
    bool walking = false;
  };
  using EntryPtr = std::shared_ptr<Entry>;
  EntryPtr entry(const ContainerPtr& container);
  void begin_walk(const ContainerPtr& container, EntryPtr entry);
  Task<void> walk(ContainerPtr container, EntryPtr entry);
  void drop_old();

  Services& services_;
  std::map<std::string, EntryPtr> entries_;
  unsigned walking_ = 0;
  async::Signal done_;  // a walk has ended
  async::TaskGroup walks_;
};

}  // namespace gantry::engine
