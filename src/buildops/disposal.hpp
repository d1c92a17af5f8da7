#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace gantry::buildops {

/// Lets go of things in a thread of its own, so that nobody waits for what their end takes. Thread-safe.
class Disposal {
 public:
  Disposal();
  /// Waits until all are gone.
  ~Disposal();
  Disposal(const Disposal&) = delete;
  Disposal& operator=(const Disposal&) = delete;

  /// The last reference goes in the other thread, or here if that has much to do already.
  void add(std::shared_ptr<void> thing);

 private:
  static constexpr std::size_t kMost = 16;
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<void>> things_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace gantry::buildops
