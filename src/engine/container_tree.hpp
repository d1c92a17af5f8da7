#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/file.hpp"
#include "sys/id_mapping.hpp"
#include "volume/mount_spec.hpp"

namespace gantry::engine {

/// What is mounted where in the files of a container, copied, so that a lane can work on it.
struct TreePlan {
  std::string container_id;
  sys::Path rootfs;  // the merged mount
  bool read_only_root = false;
  std::vector<volume::MountPoint> mounts;  // parents before children; the sources of volumes are filled in
  struct File {
    sys::Path source;
    std::string destination;
  };
  std::vector<File> files;    // hosts, hostname, resolv.conf; those that are not there are left out
  std::int64_t init_pid = 0;  // of a running container: whose tmpfs mounts are shown too
  sys::IdMapping ids;         // whose root makes what is missing
  sys::Path anchor;           // any directory of ours, which the tree covers in its own namespace
};

/// The files of a container as it would see them: its root with volumes and binds on top. They are clones of mounts in
/// a mount namespace that only this object keeps, so a process of the container can neither move nor replace them, it
/// makes no difference whether the container runs, and nothing is left behind whatever becomes of us.
/// What the runtime mounts (/proc, /sys, /dev) is not there, as in Docker.
class ContainerTree {
 public:
  /// Makes mount points that are missing, as a start would. Requires that the root is mounted. Blocks, on the file
  /// systems of binds too. Throws Error.
  static ContainerTree open_blocking(const TreePlan& plan);

  /// "/" of the container. Use it with the *_in_root functions only.
  int root() const noexcept { return root_.get(); }

 private:
  ContainerTree(sys::Fd root, sys::Fd mount_namespace)
      : root_(std::move(root)), mount_namespace_(std::move(mount_namespace)) {}

  sys::Fd root_;
  sys::Fd mount_namespace_;
};

/// Why nothing can be written to the open directory of the tree; empty if something can.
/// "container rootfs is marked read-only" or "mounted volume is marked read-only": Docker's texts.
std::string read_only_reason(int root, int directory);

}  // namespace gantry::engine
