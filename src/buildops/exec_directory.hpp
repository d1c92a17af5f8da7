#pragma once

#include <string>
#include <string_view>

#include "sys/file.hpp"

namespace gantry::buildops {

/// A directory for one process of a build: bundle, hosts file, secrets, sockets. In memory only, for root only.
class ExecDirectory {
 public:
  /// A tmpfs at <run_directory>/exec/<id>.
  ExecDirectory(const sys::Path& run_directory, const std::string& id);
  /// Unmounts all that is mounted in it, and removes it.
  ~ExecDirectory();
  ExecDirectory(const ExecDirectory&) = delete;
  ExecDirectory& operator=(const ExecDirectory&) = delete;

  const sys::Path& path() const noexcept { return path_; }
  /// A new file in it, whatever the umask is.
  sys::Path write(const std::string& name, std::string_view content, mode_t mode = 0644, uid_t uid = 0, gid_t gid = 0);
  /// Mounts what is open as `source` (a directory or a file) in it, so that it stays what it is now whatever happens to
  /// the path that led there.
  sys::Path pin(int source);

 private:
  sys::Path path_;
  int pinned_ = 0;
};

}  // namespace gantry::buildops
