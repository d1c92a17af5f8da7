#pragma once

#include <optional>
#include <string>

#include <sys/types.h>

namespace gantry::buildops {

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// A user or a group as a definition names it.
struct OwnerName {
  std::optional<std::string> name;
  std::optional<uid_t> id;
  bool empty() const noexcept { return !name && !id; }
};

/// --chown against the tree open as `root` (-1: the empty tree), whose /etc/passwd and /etc/group are read inside of
/// it. Only a user by name: its primary group too; only a user by number: the group of that number. An unknown name is
/// 0, as in BuildKit. nullopt if neither is given. Blocks.
std::optional<Owner> resolve_owner(int root, const OwnerName& user, const OwnerName& group);

}  // namespace gantry::buildops
