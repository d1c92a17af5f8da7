#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sys/fd.hpp"

/// Paths inside of trees whose content is hostile: a path is read as if the tree's root were "/", wherever its symbolic
/// links lead. All of it blocks and throws Error.
namespace gantry::buildops {

/// A path of a definition, as messages show it: absolute and clean.
std::string absolute_path(std::string_view path);

/// Where `path` leads: clean, relative to the root ("" for the root itself), with every symbolic link followed as far
/// as things exist; the last component too if `follow_last`. What does not exist is taken as it is written.
/// Throws invalid_argument for a circle of links.
std::string resolve_path(int root, std::string_view path, bool follow_last = true);

/// The directory at `path`, which resolve_path() gave, for use with the *at() calls. Follows nothing.
sys::Fd open_directory(int root, const std::string& path);

/// Directory part and last component.
std::pair<std::string, std::string> split_last(const std::string& path);
/// "a" and "b" → "a/b"; an empty part adds nothing.
std::string join_path(std::string_view directory, std::string_view name);

/// True if Go's filepath.Match would see a wildcard in it.
bool has_wildcards(std::string_view path);

/// Go's filepath.Match: `*` and `?` stop at "/", "[a-z]" and "[^a]" are classes, "\c" is c. A pattern whose syntax is
/// wrong matches nothing.
bool match_glob(std::string_view pattern, std::string_view name);

/// What `pattern` matches in the tree, as paths from its root, in the order of a walk: the components before the first
/// wildcard are followed as written (symbolic links included; the last one only if `follow`), the rest is matched
/// against every path below. A directory that matches is not searched. Without a wildcard: the path itself, whether it
/// exists or not. Empty also if the fixed part does not exist.
std::vector<std::string> expand_wildcards(int root, std::string_view pattern, bool follow);

}  // namespace gantry::buildops
