#pragma once

#include <string>
#include <vector>

#include "model/container_config.hpp"

namespace gantry::image {

/// Applies the `changes` of import and commit to a config: Dockerfile instructions CMD, ENTRYPOINT, ENV, EXPOSE,
/// HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR.
/// Throws invalid_argument `x is not a valid change command`, or that names what is wrong with the instruction.
void apply_changes(model::ContainerConfig& config, const std::vector<std::string>& changes);

}  // namespace gantry::image
