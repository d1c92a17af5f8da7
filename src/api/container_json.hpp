#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "api/json_writer.hpp"
#include "api/versions.hpp"
#include "engine/container.hpp"
#include "engine/legacy_links.hpp"
#include "engine/network_view.hpp"
#include "engine/services.hpp"
#include "json/json.hpp"

/// Containers as clients see them, shaped for the version of the API that they speak. Differences between versions are
/// in these files only. Nothing here waits.
namespace gantry::api {

/// What `size=1` adds.
struct ContainerSizes {
  std::uint64_t rw = 0;       // the container's own files
  std::uint64_t root_fs = 0;  // these and the image's
};
using SizesById = std::map<std::string, ContainerSizes>;

/// The body of GET /containers/json, also a part of /system/df. `sizes` nullptr: not asked for.
std::string render_container_list(const std::vector<engine::ContainerPtr>& containers, const engine::Services& services,
                                  engine::NetworkView& networks, ApiVersion version, const SizesById* sizes,
                                  const engine::LinkNames& links = {});

/// The body of GET /containers/{id}/json.
std::string render_container(const engine::Container& container, const engine::Services& services, ApiVersion version,
                             std::optional<ContainerSizes> sizes);

/// The OCI descriptor of the image's manifest for its platform; empty if the image is not there any more.
std::string render_manifest_descriptor(const image::Images& images, const std::string& image_id);
/// "sh -c 'echo hi'": the program and its arguments; those with a space in single quotes.
std::string render_command(const engine::Container& container);
/// The `Mounts` of a container; tmpfs mounts of `--tmpfs` are not among them.
void write_mounts(JsonWriter& json, const engine::Container& container);
void write_endpoint(JsonWriter& json, const model::EndpointSettings& endpoint);

}  // namespace gantry::api
