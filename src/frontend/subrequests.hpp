#pragma once

#include <optional>

#include "dockerfile/checks.hpp"
#include "frontend/contexts.hpp"
#include "frontend/frontend.hpp"

namespace gantry::frontend {

/// `frontend.subrequests.describe`: the list of requests (buildkit.md, appendix F).
FrontendResult describe_requests();

/// The other requests about a Dockerfile. nullopt for `frontend.convertllb`, which goes on as a build does. Throws
/// not_implemented `unsupported request x`.
std::optional<FrontendResult> answer_request(const BuildOptions& options, const DockerfileText& file,
                                             Contexts& contexts, Resolver& resolver, dockerfile::CheckInputs checks);

}  // namespace gantry::frontend
