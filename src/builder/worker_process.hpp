#pragma once

#include <string>

#include "sys/fd.hpp"
#include "sys/file.hpp"

/// What makes gantry-build a process of its own. All of it before the first thread.
namespace gantry::builder {

/// Gives this process a mount namespace: what it mounts is seen by nobody else and goes away with it. What the host
/// unmounts goes here, too.
void enter_mount_namespace();
/// Takes containers' file systems and volumes out of this namespace, so that it does not keep them from being
/// unmounted. Once the daemon has told where they are.
void drop_mounts_below(const sys::Path& directory);

/// Only one worker at a time uses the build cache: the lock of <directory>/lock, made if it is missing. Throws
/// unavailable if another process has it; the daemon starts a worker when the former one is gone.
sys::Fd lock_build_cache(const sys::Path& directory);

}  // namespace gantry::builder
