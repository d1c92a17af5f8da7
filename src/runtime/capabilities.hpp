#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::runtime {

/// The kernel's capability names in its own order ("CAP_CHOWN" … "CAP_CHECKPOINT_RESTORE"), up to the last one that
/// this kernel knows.
const std::vector<std::string>& known_capabilities();

/// Docker's fourteen.
const std::vector<std::string>& default_capabilities();

struct CapabilityRequest {
  std::vector<std::string> add;  // any case, "CAP_" optional, "ALL" allowed
  std::vector<std::string> drop;
  bool privileged = false;
};

/// The names in canonical form ("CAP_NET_ADMIN"; "ALL" stays). `field` is CapAdd or CapDrop.
/// Throws invalid_argument: `invalid CapAdd: unknown capability: "CAP_FOO"`.
std::vector<std::string> normalize_capabilities(const std::vector<std::string>& names, std::string_view field);

/// What a container gets, in the kernel's order: Docker's rule, limited to `own` (the daemon's own set: an OCI runtime
/// cannot give what the daemon lacks, and runc fails). A capability that is added by name and that we lack is an
/// error, as in Docker; one that comes with ALL, with privileged or by default is left out.
/// Throws invalid_argument.
std::vector<std::string> resolve_capabilities(const CapabilityRequest& request, const std::set<std::string>& own);

/// The daemon's bounding ∩ permitted set, from /proc/self/status.
std::set<std::string> own_capabilities();

}  // namespace gantry::runtime
