#include "exec_root.hpp"

#include <sys/mount.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "sys/mount.hpp"

namespace gantry {

ExecRoot::ExecRoot(const sys::Paths& paths) : paths_(paths) {
  sys::make_directories(paths_.exec_root, 0711);
  if (sys::is_mount_point(paths_.exec_root) || !sys::list_mounts(paths_.exec_root).empty()) return;
  sys::mount_classic(paths_.exec_root.string(), paths_.exec_root, "", MS_BIND, "");
  sys::mount_classic("none", paths_.exec_root, "", MS_PRIVATE, "");
}

void ExecRoot::release() const {
  try {
    const auto mounts = sys::list_mounts(paths_.exec_root);
    const bool only_ours = mounts.size() == 1 && mounts.front().mount_point == paths_.exec_root &&
                           mounts.front().root != "/" && sys::list_directory(paths_.shims()).empty();
    if (only_ours) sys::unmount(paths_.exec_root, sys::Unmount::now);
  } catch (const Error& e) {
    log::debug("{}: {}", paths_.exec_root.string(), e.message());  // somebody looks into it
  }
}

}  // namespace gantry
