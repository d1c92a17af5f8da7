#pragma once

#include <functional>

#include "sys/fd.hpp"
#include "sys/file.hpp"

/// Network namespaces as files. A thread's namespace is never changed and changed back: each function that must be
/// inside one does its work on a thread that ends afterwards.
namespace gantry::sys {

/// Makes a network namespace, bind-mounts it on `path` (made as an empty file, mode 0444), and runs `inside` in it.
/// If `inside` throws, everything is taken back and the error goes on. Blocks  about half a millisecond.
/// With `user_namespace` (a bind mount of one) the new namespace belongs to it: its root may do there what root may.
void create_netns(const Path& path, const std::function<void()>& inside, const Path& user_namespace = {});

/// Runs `inside` in the network namespace that `path` names (a bind mount, or /proc/<pid>/ns/net).
void enter_netns(const Path& path, const std::function<void()>& inside);

/// Unmounts and removes `path`. The namespace ends when no process and descriptor holds it; its links go with it.
/// A missing path is fine.
void remove_netns(const Path& path);

/// True if `path` is a mounted namespace and not just a left-over file.
bool is_netns(const Path& path);

}  // namespace gantry::sys
