#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "db/sqlite.hpp"

namespace gantry::db {

struct VolumeRow {
  std::string name;
  std::string driver;
  std::int64_t created_ns = 0;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> options;
  bool anonymous = false;
  bool populated = false;
  bool removing = false;  // its directory is being taken away: the removal is finished after a crash
  /// Why the row's JSON cannot be read; empty for a good one. Set by load_volumes only.
  std::string damage;
};

struct VolumeReference {
  std::string volume;
  std::string container;
};

/// Throws conflict if the name is taken.
void insert_volume(Db& db, const VolumeRow& row);
void set_volume_populated(Db& db, const std::string& name);
void set_volume_removing(Db& db, const std::string& name, bool removing);
/// Takes its references along. A missing row is fine.
void remove_volume(Db& db, const std::string& name);
/// By name. A row that cannot be read comes with `damage` set instead of an error.
std::vector<VolumeRow> load_volumes(Db& db);

/// A reference that is there already is fine, and so is removing one that is not.
void insert_volume_reference(Db& db, const VolumeReference& reference);
void remove_volume_reference(Db& db, const VolumeReference& reference);
void remove_volume_references_of(Db& db, const std::string& container);
std::vector<VolumeReference> load_volume_references(Db& db);

}  // namespace gantry::db
