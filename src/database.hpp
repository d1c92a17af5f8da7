#pragma once

#include <memory>
#include <set>
#include <string>

#include "db/sqlite.hpp"
#include "sys/fd.hpp"
#include "sys/paths.hpp"

/// How the daemon, and `gantryd repair` without one, come to their state.
namespace gantry {

/// Takes the data root for this process; nullopt-like empty if another has it. Two daemons on one data root would both
/// be right about its rows.
sys::Fd try_lock_data_root(const sys::Paths& paths);
/// As above. Throws unavailable with the remedy.
sys::Fd lock_data_root(const sys::Paths& paths);

/// Makes the directories and opens the database. One that is damaged is set aside and restored as far as it can be
/// read, which is logged; `restored` is then set. Requires the lock.
std::unique_ptr<db::Db> open_database(const sys::Paths& paths, bool* restored);

/// Moves the directories of containers that no row knows to quarantine/: after a loss of rows they may be all that is
/// left of a container's files. Blocks.
void set_aside_unknown_containers_blocking(const sys::Paths& paths, const std::set<std::string>& known);

}  // namespace gantry
