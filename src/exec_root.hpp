#pragma once

#include "sys/paths.hpp"

namespace gantry {

/// The exec root as a private mount of itself: what is mounted below it is no business of other mount namespaces, which
/// would keep it alive.
class ExecRoot {
 public:
  /// Makes the directory and the mount. An exec root that containers were started on without one stays as it is.
  /// Throws Error. Blocks.
  explicit ExecRoot(const sys::Paths& paths);
  /// Takes the mount away unless containers need it. Blocks.
  void release() const;

 private:
  const sys::Paths& paths_;
};

}  // namespace gantry
