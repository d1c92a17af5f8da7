#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "db/sqlite.hpp"

namespace gantry::db {

/// A container as it is stored. `config` and `state` are JSON that only the engine reads.
struct ContainerRow {
  std::string id;
  std::string name;  // without the slash; unique
  std::int64_t created_ns = 0;
  std::string config;  // what create() decided; changed by rename and update only
  std::string state;   // what the container does
};

/// Throws conflict if the id or the name is taken.
void insert_container(Db& db, const ContainerRow& row);
void update_container(Db& db, const ContainerRow& row);
void update_container_state(Db& db, const std::string& id, const std::string& state);
/// Throws conflict if the name is taken.
void rename_container(Db& db, const std::string& id, const std::string& name);
void remove_container(Db& db, const std::string& id);
/// Oldest first.
std::vector<ContainerRow> load_containers(Db& db);

/// A value of the daemon's own, such as its ID. Empty if it was never set.
std::string get_meta(Db& db, const std::string& key);
void set_meta(Db& db, const std::string& key, const std::string& value);

}  // namespace gantry::db
