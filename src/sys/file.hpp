#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "sys/fd.hpp"

/// Files and directories of our own trees, and safe resolution inside trees that belong to containers.
/// Everything here may block on the disk: call it from a lane, never from the event loop. All of it throws Error.
namespace gantry::sys {

using Path = std::filesystem::path;

/// open(2) with O_CLOEXEC added. The error names the path.
Fd open_file(const Path& path, int flags, mode_t mode = 0644);

/// Resolves `path` below `root` as if `root` were "/": symbolic links, absolute ones too, and ".." stay inside.
/// Source: openat2(2), RESOLVE_IN_ROOT. RESOLVE_NO_MAGICLINKS is always added.
Fd open_in_root(int root, const std::string& path, int flags, mode_t mode = 0);
/// As open_in_root, but a path that leaves `root` in any way is an error (RESOLVE_BENEATH).
Fd open_beneath(int root, const std::string& path, int flags, mode_t mode = 0);

/// The whole file. Throws invalid_argument if it is larger than `limit` bytes.
std::string read_file(const Path& path, std::size_t limit = 64 << 20);
/// nullopt if the file does not exist; other failures throw.
std::optional<std::string> find_file(const Path& path, std::size_t limit = 64 << 20);
/// For /proc and /sys files: what a read gives, or nullopt on any failure.
std::optional<std::string> try_read_small(const Path& path);
std::string read_all(int fd, std::size_t limit = 64 << 20);
void write_all(int fd, std::string_view bytes);
/// Writes to an existing file, as for /proc/sys and cgroup files.
void write_existing(const Path& path, std::string_view text);
/// Replaces `path` as a whole or not at all; on return the content is on stable storage if `durable`.
void write_atomically(const Path& path, std::string_view bytes, mode_t mode = 0644, bool durable = true);
void sync_directory(const Path& path);
/// mkdir -p. Only the directories that it makes get `mode`.
void make_directories(const Path& path, mode_t mode = 0755);
/// rm -rf that never follows a symbolic link nor crosses into another mount, for trees of any depth. A missing path is
/// fine. Returns the sizes of the files that are gone, as tree_size() counts them.
std::uint64_t remove_tree(const Path& path);
/// The sum of the files' sizes below `path`, hard links counted once and directories not at all, which is what Docker
/// shows as a size; not crossing mounts, and not counting what lies more than 256 directories deep.
std::uint64_t tree_size(const Path& path);
std::vector<std::string> list_directory(const Path& path);
/// Sets ext4's "top of directory hierarchy" flag so that subdirectories spread over block groups; ignored where the
/// file system has no such flag. See performance.md §0: ten times faster creation after deletions.
void spread_subdirectories(const Path& path) noexcept;

}  // namespace gantry::sys
