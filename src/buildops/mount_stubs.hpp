#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace gantry::buildops {

/// The places in a step's tree on which something is mounted while a process runs. What is not there is made before
/// the runtime would, and goes again afterwards, so that nothing of it stays in the layer: parents too, unless the
/// process has put something into them. Directories' times are as they would be without.
class MountStubs {
 public:
  /// `root` is the tree, open for as long as this object lives.
  explicit MountStubs(int root) : root_(root) {}

  struct Target {
    std::string path;  // in the tree; links are followed inside of it
    bool directory = true;
  };
  /// Makes what is missing. A target below another one is left to the runtime, which makes it in what is mounted there.
  /// Throws conflict if something else than a directory is in the way.
  void make(const std::vector<Target>& targets);
  /// Removes what make() made and nobody filled. To be called when nothing is mounted there any more.
  void remove();

 private:
  void make_one(const std::string& path, bool directory);
  const int root_;
  std::vector<std::string> made_;  // parents first
};

}  // namespace gantry::buildops
