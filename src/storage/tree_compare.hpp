#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "sys/paths.hpp"

/// Looking at unpacked layers: is a tree still what it was? All of it blocks and throws Error.
namespace gantry::storage {

/// "sha256:…" over what a tree is apart from its files' contents and times: names, types, modes, owners, sizes, link
/// targets, device numbers, extended attributes, and which names are one file. The same tree gives the same digest on
/// every file system.
std::string fingerprint_tree(int directory);

/// How `found` differs from `wanted`, a line for each name ("etc/passwd: 12 bytes instead of 1024"), at most `limit`;
/// with `contents` files are compared byte by byte, too.
std::vector<std::string> compare_trees(int found, int wanted, bool contents, std::size_t limit);

/// The chain ids of layers that root file systems mounted below `paths.container_mounts()` stand on. Their directories
/// must not be exchanged.
std::set<std::string> find_mounted_layers(const sys::Paths& paths);

}  // namespace gantry::storage
