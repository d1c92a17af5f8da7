#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "shim/loop.hpp"
#include "sys/file.hpp"

namespace gantry::shim {

/// Counts the processes of the container that the kernel killed for want of memory.
///
/// cgroup v2: oom_kill of memory.events, which signals its changes through inotify. cgroup v1: oom_kill of
/// memory.oom_control, with an eventfd that signals the shortage before the kill is counted, so it is read again a
/// little later. An event alone counts for nothing: only the counter does. Source: cgroup-v2.rst, cgroup-v1/memory.rst.
class OomWatch {
 public:
  /// `changed` is called when the counter has risen. A cgroup without a memory controller counts nothing.
  OomWatch(Loop& loop, const sys::Path& cgroup, std::function<void()> changed);

  std::uint64_t kills() const noexcept { return kills_; }
  /// The counter was seen to rise within the last `span`.
  bool rose_within(std::chrono::milliseconds span) const;
  /// Reads the counter now.
  void refresh();

 private:
  void watch_v2();
  void watch_v1();
  void look_again(int attempt);

  Loop& loop_;
  sys::Path cgroup_;
  std::function<void()> changed_;
  bool v2_ = false;
  sys::Fd notify_;
  sys::Fd control_;
  Watch watch_;
  Timer again_;
  std::uint64_t kills_ = 0;
  std::chrono::steady_clock::time_point last_rise_{};
};

}  // namespace gantry::shim
