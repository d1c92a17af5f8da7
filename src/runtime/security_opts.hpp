#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/host_facts.hpp"

namespace gantry::runtime {

/// HostConfig.SecurityOpt, taken apart.
struct SecurityOptions {
  enum class Seccomp { by_default, builtin, unconfined, custom };
  Seccomp seccomp = Seccomp::by_default;
  std::string seccomp_profile;  // custom: the JSON text
  std::optional<bool> no_new_privileges;
  bool writable_cgroups = false;
  std::string apparmor;  // empty: the default
  bool label_disabled = false;
  std::vector<std::string> labels;  // "user:…", "role:…", "type:…", "level:…"
};

/// "no-new-privileges", "seccomp=…", "apparmor=…", "label=…", "writable-cgroups[=bool]"; the old ":" separator too.
/// Throws invalid_argument: `invalid --security-opt 2: "bogus=1"`.
SecurityOptions parse_security_opts(const std::vector<std::string>& opts, const HostFacts& facts);

}  // namespace gantry::runtime
