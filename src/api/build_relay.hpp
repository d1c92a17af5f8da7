#pragma once

#include <string>

#include "api/request.hpp"
#include "async/task.hpp"
#include "sys/fd.hpp"

/// Carries requests and connections between clients and the builder where its descriptor cannot simply be given away.
namespace gantry::api {

/// What the client is told if the builder ends in the middle of its reply.
enum class RelayEnd {
  error_line,  // the last JSON line of a build
  cut_off,
};

/// Sends the request's body to `builder`, the other end of what was handed over as an exchange (protocol/
/// build_link.hpp), and its answer to the client meanwhile. A client that goes away closes `builder`.
Task<Response> relay_exchange(Request request, sys::Fd builder, RelayEnd end);

/// Both directions, until both have ended or one broke. `first` is what the client had already sent.
Task<void> relay_sockets(sys::Fd client, std::string first, sys::Fd builder);
Task<void> relay_stream(HijackedStream client, std::string first, sys::Fd builder);

}  // namespace gantry::api
