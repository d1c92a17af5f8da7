#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include <sys/epoll.h>

#include "sys/fd.hpp"

namespace gantry::shim {

class Loop;

/// Watches one descriptor for as long as it lives. It does not own the descriptor: declare it after the Fd.
class Watch {
 public:
  /// For change(): not registered at all. 0 means: only hang-ups and errors, which epoll always reports.
  static constexpr std::uint32_t kOff = 1u << 24;

  Watch() = default;
  Watch(Watch&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), token_(other.token_) {}
  Watch& operator=(Watch&& other) noexcept;
  ~Watch() { reset(); }
  void reset() noexcept;
  void change(std::uint32_t events);
  explicit operator bool() const noexcept { return loop_ != nullptr; }

 private:
  friend class Loop;
  Watch(Loop* loop, std::uint64_t token) : loop_(loop), token_(token) {}
  Loop* loop_ = nullptr;
  std::uint64_t token_ = 0;
};

/// Runs a function once, after a while, unless it is destroyed before.
class Timer {
 public:
  Timer() = default;
  Timer(Timer&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), token_(other.token_) {}
  Timer& operator=(Timer&& other) noexcept;
  ~Timer() { reset(); }
  void reset() noexcept;
  /// Set and not yet fired.
  bool pending() const noexcept;

 private:
  friend class Loop;
  Timer(Loop* loop, std::uint64_t token) : loop_(loop), token_(token) {}
  Loop* loop_ = nullptr;
  std::uint64_t token_ = 0;
};

/// The shim's only thread: an epoll loop with timers. A handler may destroy any Watch or Timer, its own included.
class Loop {
 public:
  using Handler = std::function<void(std::uint32_t events)>;

  Loop();
  [[nodiscard]] Watch watch(int fd, std::uint32_t events, Handler handler);
  [[nodiscard]] Timer after(std::chrono::milliseconds delay, std::function<void()> action);
  void run();
  void stop() noexcept { running_ = false; }

 private:
  friend class Watch;
  friend class Timer;
  struct Registration {
    int fd = -1;
    bool registered = false;
    std::uint32_t events = 0;
    std::shared_ptr<Handler> handler;
  };
  struct Alarm {
    std::chrono::steady_clock::time_point when;
    std::function<void()> action;
  };
  void change(std::uint64_t token, std::uint32_t events);
  void forget(std::uint64_t token) noexcept;
  void run_timers();
  int timeout_ms() const;

  sys::Fd epoll_;
  bool running_ = true;
  std::uint64_t next_token_ = 1;
  std::unordered_map<std::uint64_t, Registration> watches_;
  std::map<std::uint64_t, Alarm> alarms_;  // few: a search is a walk
};

}  // namespace gantry::shim
