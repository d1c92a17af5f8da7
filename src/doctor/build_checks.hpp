#pragma once

#include <set>
#include <string>
#include <vector>

#include "doctor/checks.hpp"

namespace gantry::db {
class Db;
}

namespace gantry::doctor {

/// Layers that are kept for the build cache, and what a builder left that does not run. Blocks.
void check_builds(db::Db& db, const sys::Paths& paths, std::vector<Finding>& out);

/// Without the names of builds' network namespaces, as long as there is a builder that may be using them. Blocks.
std::set<std::string> without_running_builds(const sys::Paths& paths, std::set<std::string> names);

}  // namespace gantry::doctor
