#pragma once

#include "config/config.hpp"

namespace gantry {

/// `gantryd repair`: asks the daemon that runs to repair its store, or does it itself if none does. Prints what it
/// finds. The exit status: 0 if all is well now, 1 if something could not be repaired.
int run_repair(const config::Config& config, bool contents);

}  // namespace gantry
