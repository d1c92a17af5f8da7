#pragma once

#include <map>
#include <mutex>
#include <string>

#include "sys/fd.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {

/// Programs as nobody can change them, for processes that enter containers: what a container finds at /proc/<pid>/exe,
/// or executes as its own /proc/self/exe, must not be a writable file of the host (CVE-2019-5736). Such a program is
/// executed through a read-only mount that stands in no namespace, so nothing can remount it, and its pages are those
/// of the file. Where the kernel allows no such mount, it is a sealed copy in memory. Any thread.
class SealedPrograms {
 public:
  /// A path that spawn() can execute, as long as this process lives. It stays what it is when the file is replaced.
  /// Throws if there is neither; not_implemented if the kernel is told to forbid programs in memory (sysctl
  /// vm.memfd_noexec=2), which matters without mount_setattr(2) only: Linux 5.12. Blocks  on opening the program.
  std::string path_of(const sys::Path& program);
  /// Makes the next call begin anew, for a program that could not be executed.
  void forget(const sys::Path& program);

 private:
  struct Sealed {
    sys::Fd mount;  // open for as long as the program's path is to be known; empty: a copy
    sys::Fd file;
  };
  static Sealed seal(const sys::Path& program);

  std::mutex mutex_;
  std::map<std::string, Sealed> programs_;
};

}  // namespace gantry::runtime
