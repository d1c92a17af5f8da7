#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/spec.hpp"

namespace gantry::runtime {

struct ResolvedUser {
  ProcessUser user;
  std::string name;  // as in the passwd file; empty if there is no entry
  std::string home;  // "/" if there is no entry
};

/// Config.User ("name|uid[:group|gid]", empty: root) and HostConfig.GroupAdd against the container's own /etc/passwd
/// and /etc/group below `rootfs`. The files are the container's, so they are opened inside its root, must be regular
/// and are read to a bound; lines that make no sense are skipped.
///
/// A number needs no entry. Text that begins like a number but is none is an error, never a name.
/// Throws invalid_argument: `unable to find user foo: no matching entries in passwd file`, `unable to find group bar:
/// no matching entries in group file`, `uids and gids must be in range 0-2147483647`.
/// Blocks on the disk.
ResolvedUser resolve_user_blocking(const std::string& rootfs, std::string_view user,
                                   const std::vector<std::string>& group_add);

/// The same on file contents; nullopt stands for a missing file.
ResolvedUser resolve_user(const std::optional<std::string>& passwd, const std::optional<std::string>& group,
                          std::string_view user, const std::vector<std::string>& group_add);

}  // namespace gantry::runtime
