#pragma once

#include "shim/loop.hpp"
#include "sys/file.hpp"

namespace gantry::shim {

/// Keeps the kernel's lock for moving processes between cgroups quick while a runtime starts a container.
///
/// cgroup_threadgroup_rwsem is a per-CPU semaphore: the first writer after a quiet time waits for an RCU grace period
/// (5 to 10 ms, performance.md §1), those that follow within another one take microseconds. The runtime needs it in the
/// middle of its work and waits there. Here it is taken, by moving this process to where it is, as soon as the runtime
/// begins and then every few milliseconds, so that the wait runs beside the runtime's own start.
class CgroupWarmth {
 public:
  /// `own` is the cgroup directory that this process is in. Whatever goes wrong only makes the start slower.
  CgroupWarmth(Loop& loop, const sys::Path& own);

 private:
  void touch();

  Loop& loop_;
  sys::Fd procs_;
  Timer again_;
  int left_;  // a runtime that hangs is not waited for in this way
};

}  // namespace gantry::shim
