#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/time.hpp"

namespace gantry::db {

class Db;

/// The tables of this file, for the schema list.
extern const char* const kLayerSchema;
extern const char* const kLayerFingerprint;

/// A layer is ready when its directory is in place. It is missing when the directory was found lost or damaged: it is
/// then rebuilt from its blob before anything uses it.
enum class LayerState { ready, missing };

/// One unpacked layer. The digests are in the form "sha256:…".
struct LayerRow {
  std::string chain_id;
  std::string parent;        // chain id below; empty for the lowest layer
  std::string diff_id;       // of the uncompressed tar
  std::string blob_digest;   // of what it was unpacked from; empty if that is not kept
  std::int64_t size = 0;     // bytes of file content, hard links once
  std::int64_t entries = 0;  // files, directories and the rest, without the layer's own root
  Timestamp created;
  LayerState state = LayerState::ready;
  std::string fingerprint;  // of the directory's names and attributes; empty in rows of an older gantryd
};

/// All of these block: db lane.
std::vector<LayerRow> list_layers(Db& db);
/// Inserts the row or replaces the one with the same chain id.
void save_layer(Db& db, const LayerRow& row);
void remove_layer(Db& db, const std::string& chain_id);

}  // namespace gantry::db
