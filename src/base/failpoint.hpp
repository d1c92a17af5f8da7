#pragma once

#include <string_view>

namespace gantry {

/// Names a place where a multi-step verb can be interrupted.
///
/// A test arms one through the environment: `GANTRY_FAILPOINTS="create.after_row=kill;start.after_mount=error"`.
/// `kill` ends the process at once as `kill -9` would, `error` throws an Error(internal), `hang` stops the calling
/// thread for good. `name@3=kill` acts at the third pass. Unarmed it costs one relaxed load.
void failpoint(std::string_view name);

/// Reads GANTRY_FAILPOINTS. Called once from main.
void arm_failpoints_from_environment();
/// Arms or replaces the set. Same syntax as the variable. Throws invalid_argument.
void arm_failpoints(std::string_view text);

}  // namespace gantry

#define FAILPOINT(name) ::gantry::failpoint(name)
