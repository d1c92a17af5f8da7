#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include "proto/control.pb.h"

namespace gantry::session {
class Sessions;
}

namespace gantry::builder {

/// Control/Session: a client's session as a stream of bytes in a call. Blocks until one side ends it.
void serve_session_tunnel(
    session::Sessions& sessions, grpc::ServerContext& context,
    grpc::ServerReaderWriter<moby::buildkit::v1::BytesMessage, moby::buildkit::v1::BytesMessage>& stream);

}  // namespace gantry::builder
