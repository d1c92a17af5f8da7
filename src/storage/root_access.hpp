#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

#include "base/time.hpp"
#include "storage/byte_source.hpp"
#include "storage/unpack.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"

/// Work inside the root file system of a container, whose content is hostile and may change while we look: every path
/// is resolved by the kernel as if the root were "/" (RESOLVE_IN_ROOT), and what was resolved is used by descriptor.
/// All of it blocks; all of it throws Error.
namespace gantry::storage {

/// What `docker cp` asks about one path.
struct PathStat {
  std::string name;  // last component of the path asked for; "/" for the root
  std::int64_t size = 0;
  mode_t mode = 0;  // as stat(2) gives it
  Timestamp mtime;
  std::string link_target;  // where a symbolic link leads, absolute inside the root; as far as it exists
};

/// The last component is not followed, unless the path ends in "/" or "/.". Throws not_found.
PathStat stat_path(int root, const std::string& path);

/// mkdir -p inside the root. Directories that are made get mode 0755 and the owner; what exists is left alone.
/// Throws conflict if something else than a directory is in the way.
void make_directory_in_root(int root, const std::string& path, uid_t uid, gid_t gid);
/// Makes an empty file (or leaves what exists), with its parents, as a place to mount something on.
void make_file_in_root(int root, const std::string& path);

/// The content of a file inside the root, for /etc/passwd and the like. nullopt if there is no such regular file.
std::optional<std::string> read_file_in_root(int root, const std::string& path, std::size_t limit = 4 << 20);

/// Copies what is in the directory `path` of the root into the directory `destination`: owners, modes, times, extended
/// attributes, links, hard links among the copied, devices, holes. The directory's own owner and mode are copied too.
/// For the first use of an empty volume. Mounts below are not entered. A `path` that does not exist, or that is not a
/// directory, copies nothing and returns false.
bool copy_directory_preserving(int root, const std::string& path, int destination);
/// True if the directory has no entries, "lost+found" aside.
bool is_empty_directory(int directory);

/// Writes the tar of `path` that GET /containers/{id}/archive sends: names begin with the last component of the path,
/// or are "./…" for a path that ends in "/.". Owners are written as a container with the mapping sees them.
void tar_path(int root, const std::string& path, const ByteSink& sink, const sys::IdMapping& ids = {});
/// Unpacks into the directory `path`: not_found if there is none, invalid_argument "extraction point is not a
/// directory" if it is something else.
UnpackResult untar_into(int root, const std::string& path, ByteSource& tar, const UnpackOptions& options);

}  // namespace gantry::storage
