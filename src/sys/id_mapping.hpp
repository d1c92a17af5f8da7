#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/file.hpp"

namespace gantry::sys {

/// `count` ids from `inside` on, as a user namespace sees them, are those from `outside` on for us.
struct IdRange {
  std::uint32_t inside = 0;
  std::uint32_t outside = 0;
  std::uint32_t count = 0;

  bool operator==(const IdRange&) const = default;
};

/// Which users and groups of a container are which ones of the host. Empty: they are the same.
struct IdMapping {
  std::vector<IdRange> uids;
  std::vector<IdRange> gids;

  bool empty() const noexcept { return uids.empty() && gids.empty(); }
  /// What an id of the container is on the host. Throws invalid_argument if it is mapped to nothing.
  std::uint32_t host_uid(std::uint32_t inside) const;
  std::uint32_t host_gid(std::uint32_t inside) const;
  /// What the container sees of an id of the host: 65534, the kernel's "nobody", if it is not one of its own.
  std::uint32_t container_uid(std::uint32_t outside) const noexcept;
  std::uint32_t container_gid(std::uint32_t outside) const noexcept;

  bool operator==(const IdMapping&) const = default;
};

/// A user namespace with this mapping, which lasts as long as the descriptor, what is mounted from it and its members.
/// Requires CAP_SETUID and CAP_SETGID. Blocks for the start of a process.
Fd make_user_namespace(const IdMapping& mapping);

/// The same, bind-mounted on `path` (made as an empty file), so that it lasts. What is there already is replaced.
void create_user_namespace(const Path& path, const IdMapping& mapping);
/// Unmounts and removes `path`. A missing path is fine.
void remove_user_namespace(const Path& path);

}  // namespace gantry::sys
