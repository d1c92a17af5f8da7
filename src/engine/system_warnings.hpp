#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"
#include "runtime/host_facts.hpp"

namespace gantry::engine {

/// "name=seccomp,profile=builtin" …: what confines containers here.
std::vector<std::string> security_options(const config::Config& config, const runtime::HostFacts& host);

/// The lines that clients print after `docker info`: what this machine lacks, and settings that are dangerous.
std::vector<std::string> daemon_warnings(const config::Config& config, const runtime::HostFacts& host);

/// A proxy's URL with "xxxxx:xxxxx" in place of a user and password.
std::string mask_credentials(std::string_view url);

}  // namespace gantry::engine
