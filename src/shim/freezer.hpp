#pragma once

#include <functional>
#include <string>

#include "shim/loop.hpp"
#include "sys/file.hpp"

namespace gantry::shim {

/// Stops and continues all processes of a cgroup through its freezer, v2 (cgroup.freeze) or v1 (freezer.state).
class Freezer {
 public:
  /// Empty if it worked, what went wrong otherwise.
  using Done = std::function<void(std::string failure)>;

  Freezer(Loop& loop, sys::Path cgroup) : loop_(loop), cgroup_(std::move(cgroup)) {}
  /// The cgroup exists and has a freezer.
  bool usable() const;
  bool busy() const noexcept { return static_cast<bool>(done_); }
  /// Calls `done` when the kernel says so, or after two seconds when it does not; then a freeze is taken back.
  void set(bool frozen, Done done);

 private:
  bool v2() const;
  bool request(bool frozen);
  bool reached(bool frozen) const;
  void check(bool frozen, int attempt);
  void finish(std::string failure);

  Loop& loop_;
  sys::Path cgroup_;
  Timer timer_;
  Done done_;
};

}  // namespace gantry::shim
