#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Extended attributes. Files are named by a descriptor, or by an open directory and one name in it; symbolic links
/// are never followed. All of it may block on the disk and throws Error.
namespace gantry::sys {

struct Xattr {
  std::string name;
  std::string value;
};

/// "/proc/self/fd/<n>": names what is open as `fd`, also when that is an O_PATH descriptor.
std::string fd_path(int fd);
/// "/proc/self/fd/<directory>/<name>".
std::string entry_path(int directory, std::string_view name);

/// All attributes of `name` in `directory`, sorted by name; none where the file system has no attributes.
/// Throws invalid_argument if they are larger than 1 MiB together.
std::vector<Xattr> list_xattrs(int directory, std::string_view name);
/// As above, of what is open as `fd`.
std::vector<Xattr> list_xattrs(int fd);
/// nullopt if there is no such attribute.
std::optional<std::string> find_xattr(int directory, std::string_view name, const char* attribute);
std::optional<std::string> find_xattr(int fd, const char* attribute);
void set_xattr(int directory, std::string_view name, const Xattr& attribute);
void set_xattr(int fd, const Xattr& attribute);

}  // namespace gantry::sys
