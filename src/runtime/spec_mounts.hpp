#pragma once

#include <string_view>
#include <vector>

#include "runtime/spec.hpp"

namespace gantry::runtime {

/// Where the init of `--init` is seen in a container.
inline constexpr std::string_view kInitInContainer = "/sbin/docker-init";

/// The default mounts that the spec's own ones leave in place, then the spec's own, parents before children.
std::vector<Mount> merge_default_mounts(const ContainerSpec& spec);

}  // namespace gantry::runtime
