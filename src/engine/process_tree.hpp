#pragma once

#include <set>
#include <vector>

#include <sys/types.h>

namespace gantry::engine {

/// Kills a process with everything that came from it: its descendants, also those whose parents are gone already, as
/// far as they stayed in its session or were seen in an earlier round. Root must lead a session (execs do).
class TreeKiller {
 public:
  explicit TreeKiller(pid_t root) : root_(root), seen_{root} {}

  /// One round among `candidates` (all processes of the container). False if none was found alive. Blocks on /proc.
  bool kill(const std::vector<pid_t>& candidates);

 private:
  pid_t root_;
  std::set<pid_t> seen_;
};

}  // namespace gantry::engine
