#pragma once

#include <string>
#include <string_view>

#include <sys/types.h>

#include "buildops/attributes.hpp"

/// The small actions of a file step, in the tree open as `root`. Links on the way are followed inside the tree.
/// All of it blocks and throws Error naming the path in the tree.
namespace gantry::buildops {

/// What exists as a directory is left alone. Without `parents` the parent must exist.
void make_directory(int root, std::string_view path, mode_t mode, bool parents, const Looks& looks);

/// Replaces the content of a file that exists, through symbolic links.
void make_file(int root, std::string_view path, mode_t mode, std::string_view bytes, const Looks& looks);

/// Makes `path` a symbolic link to `target`, which is taken as it is.
void make_symlink(int root, std::string_view target, std::string_view path, const Looks& looks);

/// Removes a file, a link itself, or a whole directory; every match of a wildcard.
/// Throws not_found unless `allow_missing`; invalid_argument for the root.
void remove_path(int root, std::string_view path, bool allow_missing, bool wildcards);

}  // namespace gantry::buildops
