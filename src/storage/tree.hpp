#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include "sys/fd.hpp"

/// Small helpers for walking and writing trees by descriptor. All of it blocks and throws Error.
namespace gantry::storage {

inline constexpr const char* kOpaqueXattr = "trusted.overlay.opaque";
inline constexpr std::string_view kWhiteoutPrefix = ".wh.";
inline constexpr std::string_view kOpaqueMarker = ".wh..wh..opq";
/// Deeper trees than this are refused instead of walked: each level of a walk holds a descriptor.
inline constexpr int kDeepestWalk = 1024;

/// How overlayfs marks a deleted name. Source: Documentation/filesystems/overlayfs.rst, "whiteouts".
inline bool is_whiteout(const struct stat& st) noexcept { return S_ISCHR(st.st_mode) && st.st_rdev == 0; }
bool is_opaque(int directory);
void set_opaque(int directory);

/// nullopt if there is no such name. Never follows a link.
std::optional<struct stat> find_stat(int directory, const char* name);
struct stat get_stat(int fd);
/// A directory below `parent`, which is not a symbolic link.
sys::Fd open_subdirectory(int parent, const char* name);
/// The names in an open directory, in byte order.
std::vector<std::string> list_names(int directory);
std::string read_link(int directory, const char* name);

/// `name` as a path relative to a root: leading, doubled and trailing slashes and "." are dropped, ".." is applied.
/// Empty for the root itself; nullopt if it climbs out.
std::optional<std::string> clean_relative(std::string_view name);
/// The path as the root's own kernel would read it lexically: ".." at the root stays there. Always inside.
std::string clamp_relative(std::string_view path);
/// Directory part and last component of a clean relative path.
std::pair<std::string, std::string> split_path(const std::string& clean);

struct TreeCount {
  std::uint64_t entries = 0;  // the directory itself not counted
  std::uint64_t bytes = 0;    // of regular files, hard links once
};
TreeCount count_tree(int directory);

}  // namespace gantry::storage
