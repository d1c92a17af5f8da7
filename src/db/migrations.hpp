#pragma once

#include <vector>

namespace gantry::db {

/// Every step of the schema, oldest first: step n brings a file from version n to n + 1. A released step never changes.
const std::vector<std::vector<const char*>>& migrations();

}  // namespace gantry::db
