#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/host_facts.hpp"
#include "runtime/resources.hpp"

/// What a container may ask for. Pure functions; texts of errors and warnings are Docker's.
namespace gantry::runtime {

/// Checks `resources` and takes out what this machine cannot do, saying so in the returned warnings. On creation it
/// also fills in Docker's defaults (memory_swap is twice the memory). Throws invalid_argument.
struct LimitsPurpose {
  bool update = false;  // for a running container: unset means unchanged
};
std::vector<std::string> validate_resources(Resources& resources, const HostFacts& facts, LimitsPurpose purpose = {});

/// The values that `changes` sets, put over `current`; the rules that bind both are checked ("Memory limit should be
/// smaller than already set memoryswap limit, …"). `changes` went through validate_resources before.
Resources apply_update(const Resources& current, const Resources& changes);

void validate_oom_score_adj(int value);
void validate_shm_size(std::int64_t bytes);
/// Names, soft <= hard. Throws invalid_argument.
void validate_ulimits(const std::vector<Ulimit>& ulimits);
/// The defaults, replaced by name by the container's own.
std::vector<Ulimit> merge_ulimits(const std::vector<Ulimit>& defaults, const std::vector<Ulimit>& own);

struct SysctlScope {
  bool private_net = true;
  bool private_ipc = true;
  bool private_uts = true;
};
/// Only what belongs to a namespace of the container's own. Throws invalid_argument: `sysctl "kernel.core_pattern" is
/// not in a separate kernel namespace`.
void validate_sysctls(const std::map<std::string, std::string>& sysctls, const SysctlScope& scope);

/// "/a/b" or "a/b" without "..", or "x.slice" for systemd. Throws invalid_argument.
void validate_cgroup_parent(const std::string& parent, bool systemd);
/// What config.json says of the container's group: `<parent>/<id>`, parent "/docker" unless given; for systemd
/// "<slice>:docker:<id>", slice "system.slice" unless given.
std::string cgroups_path(const std::string& parent, const std::string& id, bool systemd);
/// Where that group is in the hierarchies: for systemd "/a.slice/a-b.slice/docker-<id>.scope" with parent "a-b.slice".
/// A parent that is no slice is one from before the driver was changed: no group of systemd, so the path itself.
std::string cgroup_directory(const std::string& parent, const std::string& id, bool systemd);

/// "0-3,5" → 0,1,2,3,5. nullopt if it is not such a list or names a number above 8191.
std::optional<std::vector<unsigned>> parse_cpu_list(std::string_view text);

/// HostConfig.MaskedPaths and ReadonlyPaths: absolute and clean. `field` names the one.
void validate_path_list(const std::vector<std::string>& paths, std::string_view field);

}  // namespace gantry::runtime
