#pragma once

#include <map>
#include <mutex>
#include <string>

#include "sys/fd.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {

/// Copies of programs in memory that nobody can change any more, for processes that enter containers: what a container
/// finds at /proc/<pid>/exe, or executes as its own /proc/self/exe, is such a copy and never a file of the host
/// (CVE-2019-5736). All processes share the pages of one copy. Any thread.
class SealedPrograms {
 public:
  /// A path that spawn() can execute, as long as this process lives: the copy is made by the first call.
  /// Throws if it cannot be made; not_implemented if the kernel is told to forbid programs in memory
  /// (sysctl vm.memfd_noexec=2). Blocks on reading the program.
  std::string path_of(const sys::Path& program);
  /// Makes the next call copy it again, for a copy that could not be executed.
  void forget(const sys::Path& program);

 private:
  std::mutex mutex_;
  std::map<std::string, sys::Fd> copies_;
};

}  // namespace gantry::runtime
