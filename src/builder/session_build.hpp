#pragma once

#include "builder/builds.hpp"
#include "buildlink/link.hpp"

namespace gantry::builder {

/// `POST /build` of version 2, which Docker's clients before 23 send: BuildKit's builder with parameters in the URL, a
/// session for everything else, and progress as messages of the Control service in JSON lines. Source: buildkit.md
/// §1.5. Blocks; one thread for each build. Throws nothing that the client is to know: it is told.
void serve_session_build(Builds& builds, const buildlink::Incoming& incoming, buildlink::Exchange& exchange,
                         std::stop_token stop);

/// What both versions refuse. Throws invalid_argument; true for version 2.
bool check_build_request(const buildlink::Incoming& incoming, const buildlink::Settings& settings);

}  // namespace gantry::builder
