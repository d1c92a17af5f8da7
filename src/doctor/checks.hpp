#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"
#include "runtime/host_facts.hpp"
#include "sys/paths.hpp"

/// `gantryd doctor`: looks at the machine and at what a daemon left on it, whether the daemon runs or not. Changes
/// nothing.
namespace gantry::doctor {

struct Finding {
  enum class Level { ok, note, problem };
  Level level = Level::ok;
  std::string subject;
  std::string text;
  std::string remedy;  // empty: nothing to do
};

/// What this machine offers to containers.
std::vector<Finding> check_host(const runtime::HostFacts& facts);
/// Whether other programs' packet filters stop what containers' bridges forward. Blocks.
std::vector<Finding> check_network_blocking(const config::Config& config);
/// Rows against directories, mounts, namespaces and shims: whatever belongs to no row is a leak. Blocks.
/// While a daemon works on a container, a finding about that container may be out of date.
std::vector<Finding> check_state_blocking(const sys::Paths& paths);

/// One line per finding; problems last.
std::string render_report(const std::vector<Finding>& findings);
/// 1 if there is a problem, else 0.
int exit_code(const std::vector<Finding>& findings);

}  // namespace gantry::doctor
