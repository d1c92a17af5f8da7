#pragma once

#include <sys/resource.h>

namespace gantry::shim {

/// The limit on open files that the shim was started with, for everything that it starts. The shim itself has the hard
/// one, once raise_open_files() was called.
rlimit original_open_files();
void raise_open_files();

/// Has the original limit for as long as it lives: around the start of another program.
class OriginalOpenFiles {
 public:
  OriginalOpenFiles();
  ~OriginalOpenFiles();
  OriginalOpenFiles(const OriginalOpenFiles&) = delete;
  OriginalOpenFiles& operator=(const OriginalOpenFiles&) = delete;
};

}  // namespace gantry::shim
