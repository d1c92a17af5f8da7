#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sys/file.hpp"

namespace gantry::db {

class Db;

/// Where copy_database() keeps the copy of the database `file`.
sys::Path copy_of(const sys::Path& file);
/// Writes a compact copy beside the database. Durable on return; a crash leaves the former copy. Blocks: db lane.
void copy_database(Db& db, const sys::Path& file);

struct Restored {
  sys::Path kept;                       // the damaged file
  bool from_copy = false;               // there was a good copy to begin with
  std::int64_t rows = 0;                // that could be read in the damaged file
  std::vector<std::string> incomplete;  // tables that could not be read to their end: older rows fill them up
};

/// Sets a damaged database aside and makes a new one at its place: every table as it can still be read there, and where
/// it cannot, filled up with the rows of the last copy. A table that is read whole is taken as it is, so what was
/// removed since the copy stays removed. Never throws for damage. Blocks.
Restored restore_database(const sys::Path& file);

}  // namespace gantry::db
