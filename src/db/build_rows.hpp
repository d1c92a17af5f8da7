#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gantry::db {

class Db;

/// The tables of this file, for the schema list.
extern const char* const kBuildSchema;

/// A layer that the build cache needs, whether an image has it or not: it stays until the builder releases it.
struct BuildLayerRow {
  std::string chain_id;
  std::string blob_digest;  // of its compressed tar
};

/// All of these block: db lane.
std::vector<BuildLayerRow> list_build_layers(Db& db);
void save_build_layer(Db& db, const BuildLayerRow& row);
void remove_build_layer(Db& db, const std::string& chain_id);

}  // namespace gantry::db
