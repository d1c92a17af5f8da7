#pragma once

#include <cstdint>
#include <optional>

#include "api/json_writer.hpp"
#include "volume/volumes.hpp"

namespace gantry::api {

/// What /system/df adds to a volume.
struct VolumeUsage {
  std::int64_t size = -1;  // bytes; -1: not known
  std::int64_t references = -1;
};

/// A volume as GET /volumes lists it and GET /volumes/{name} shows it.
void write_volume(JsonWriter& json, const volume::Volume& volume, std::optional<VolumeUsage> usage = std::nullopt);

}  // namespace gantry::api
