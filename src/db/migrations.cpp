#include "db/migrations.hpp"

namespace gantry::db {

// Each table's text stands beside its rows.
extern const char* const kBuildSchema;
extern const char* const kContainerSchema;
extern const char* const kEventSchema;
extern const char* const kImageSchema;
extern const char* const kLayerSchema;
extern const char* const kLayerFingerprint;
extern const char* const kNetworkSchema;
extern const char* const kVolumeSchema;

const std::vector<std::vector<const char*>>& migrations() {
  static const std::vector<std::vector<const char*>> all{
      {kContainerSchema, kEventSchema, kImageSchema, kLayerSchema, kNetworkSchema, kVolumeSchema},
      {kLayerFingerprint},
      {kBuildSchema},
  };
  return all;
}

}  // namespace gantry::db
