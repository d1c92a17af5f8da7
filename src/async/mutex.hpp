#pragma once

#include <chrono>
#include <deque>
#include <string>

#include "async/signal.hpp"
#include "async/task.hpp"

namespace gantry::async {

/// Orders the verbs of one object: first come, first served. Loop thread only. Never hold two of them, and never
/// hold one while waiting for a client.
class Mutex {
 public:
  class Guard {
   public:
    Guard() = default;
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&& other) noexcept {
      if (this != &other) {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Guard() { unlock(); }
    void unlock();

   private:
    friend class Mutex;
    explicit Guard(Mutex* mutex) : mutex_(mutex) {}
    Mutex* mutex_ = nullptr;
  };

  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  /// `what` names the verb for whoever has to wait for it. Throws unavailable, naming the verb in the way, after
  /// `limit`.
  Task<Guard> lock(std::string what, std::chrono::milliseconds limit = std::chrono::minutes(2));
  bool is_locked() const noexcept { return held_; }
  const std::string& holder() const noexcept { return holder_; }

 private:
  struct Ticket {
    bool granted = false;
    Signal turn;
  };
  void release();
  bool held_ = false;
  std::string holder_;
  std::deque<Ticket*> queue_;
};

}  // namespace gantry::async
