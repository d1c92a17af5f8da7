#include "api/volume_json.hpp"

#include <gtest/gtest.h>

namespace gantry::api {
namespace {

std::string render(const volume::Volume& volume, std::optional<VolumeUsage> usage = std::nullopt) {
  std::string out;
  JsonWriter json(out);
  write_volume(json, volume, usage);
  return out;
}

TEST(VolumeJson, EmptyMapsAreNullAndTimesAreSeconds) {
  volume::Volume volume;
  volume.name = "data";
  volume.mountpoint = "/v/data/_data";
  volume.created = Timestamp(std::chrono::nanoseconds(1'700'000'000'123'456'789));
  EXPECT_EQ(render(volume),
            R"({"CreatedAt":"2023-11-14T22:13:20Z","Driver":"local","Labels":null,"Mountpoint":"/v/data/_data",)"
            R"("Name":"data","Options":null,"Scope":"local"})");
}

TEST(VolumeJson, UsageComesWithDiskUsageOnly) {
  volume::Volume volume;
  volume.labels = {{"a", "b"}};
  volume.options = {{"type", "tmpfs"}};
  const std::string text = render(volume, VolumeUsage{.size = 5, .references = 2});
  EXPECT_NE(text.find(R"("Labels":{"a":"b"})"), std::string::npos);
  EXPECT_NE(text.find(R"("Options":{"type":"tmpfs"})"), std::string::npos);
  EXPECT_NE(text.find(R"("UsageData":{"RefCount":2,"Size":5})"), std::string::npos);
}

}  // namespace
}  // namespace gantry::api
