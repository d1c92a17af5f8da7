#pragma once

#include <string>

#include "sys/file.hpp"
#include "sys/id_mapping.hpp"

namespace gantry::runtime {

/// Who owns the containers' ids on the host: the setting `userns-remap`.
struct RemapFiles {
  sys::Path subuid = "/etc/subuid";  // subuid(5): "name-or-uid:first:count"
  sys::Path subgid = "/etc/subgid";
};

/// "user", "uid", "user:group", "uid:gid", or "default" for the user and group dockremap. All ranges of the user count,
/// one after the other. Users are looked up with getpwnam(3).
/// An empty mapping for root, who cannot be mapped to himself. Throws invalid_argument with Docker's texts.
/// Blocks on the files, and on what the name service asks.
sys::IdMapping read_id_mapping_blocking(const std::string& setting, const RemapFiles& files = {});

}  // namespace gantry::runtime
