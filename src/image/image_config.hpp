#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"
#include "image/platform.hpp"
#include "model/container_config.hpp"

namespace gantry::image {

struct HistoryEntry {
  Timestamp created{};
  std::string created_by;
  std::string author;
  std::string comment;
  bool empty_layer = false;

  bool operator==(const HistoryEntry&) const = default;
};

/// What an image's config blob says (OCI image-spec config.md).
struct ImageConfig {
  Timestamp created{};
  std::string author;
  std::string comment;
  Platform platform;
  model::ContainerConfig config;
  std::vector<std::string> diff_ids;  // digests of the uncompressed layers, lowest first
  std::vector<HistoryEntry> history;
};

/// Reads a config blob. Throws invalid_argument naming the field: not an image, rootfs.type is not "layers", malformed
/// diff_ids, or more entries than the bounds of security.md §6.3 allow.
ImageConfig parse_image_config(std::string_view bytes);

/// The blob for a new image (import, commit).
std::string render_image_config(const ImageConfig& config);

/// The chain ID of each layer: it names the stack of all layers up to this one (OCI image-spec).
std::vector<std::string> chain_ids(const std::vector<std::string>& diff_ids);

}  // namespace gantry::image
