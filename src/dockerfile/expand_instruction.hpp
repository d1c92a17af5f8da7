#pragma once

#include <set>
#include <string>

#include "dockerfile/environment.hpp"
#include "dockerfile/instruction.hpp"

namespace gantry::dockerfile {

/// `instruction` with the variables of the words that expand, by the environment before it.
///
/// Expand: ENV and LABEL (names and values), COPY and ADD (sources, destination, --chown, --chmod, --checksum,
/// --exclude, inline files whose delimiter was not quoted), WORKDIR, USER, VOLUME, STOPSIGNAL, EXPOSE (one word may
/// become several). As they are: RUN, CMD, ENTRYPOINT, SHELL, HEALTHCHECK, MAINTAINER, ONBUILD, and ARG, whose defaults
/// Scope::apply expands because a build argument makes them irrelevant. RUN's mounts are read with parse_mount.
///
/// Throws SourceError with the instruction's lines. `unmatched`, if given, receives the variables that are not set.
Instruction expand_instruction(const Instruction& instruction, const Environment& environment, char escape,
                               std::set<std::string>* unmatched = nullptr);

/// COPY --from, RUN --mount=from: names may not hold variables. Throws Error for one that does.
void require_no_variables(const CopyInstruction& copy);

}  // namespace gantry::dockerfile
