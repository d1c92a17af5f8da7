#pragma once

#include <string>
#include <string_view>

#include "protocol/types.hpp"

/// Reads what OCI runtimes say when they fail. The only place that looks into their words.
namespace gantry::shim {

/// The last error in a runtime's JSON log (`--log-format json`); if there is none, what it printed. At most 8 KiB.
std::string failure_text(std::string_view json_log, std::string_view printed);

/// Sorts a failure by its words, which runc and crun share with the kernel's and Go's texts.
protocol::RuntimeFailure classify_failure(protocol::Stage stage, std::string message);

}  // namespace gantry::shim
