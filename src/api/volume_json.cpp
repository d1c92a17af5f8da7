#include "api/volume_json.hpp"

#include <chrono>
#include <map>

#include "base/time.hpp"

namespace gantry::api {
namespace {

/// Docker writes null for a map that was never given.
void write_map(JsonWriter& json, std::string_view name, const std::map<std::string, std::string>& map) {
  json.key(name);
  if (map.empty()) {
    json.null();
    return;
  }
  json.begin_object();
  for (const auto& [key, value] : map) json.field(key, value);
  json.end_object();
}

}  // namespace

void write_volume(JsonWriter& json, const volume::Volume& volume, std::optional<VolumeUsage> usage) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(volume.created);
  json.begin_object().field("CreatedAt", render_rfc3339_nano(seconds)).field("Driver", volume.driver);
  write_map(json, "Labels", volume.labels);
  json.field("Mountpoint", volume.mountpoint).field("Name", volume.name);
  write_map(json, "Options", volume.options);
  json.field("Scope", "local");
  if (usage) {
    json.key("UsageData").begin_object();
    json.field("RefCount", usage->references).field("Size", usage->size).end_object();
  }
  json.end_object();
}

}  // namespace gantry::api
