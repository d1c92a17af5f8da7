#pragma once

#include <memory>
#include <string>

#include <grpcpp/channel.h>

#include "session/session.hpp"

namespace gantry::session {

/// Session::forward_agent() on a channel: threads that pump bytes between connections of the socket and streams.
std::unique_ptr<AgentSocket> listen_for_agent(std::shared_ptr<grpc::Channel> channel, const std::string& id,
                                              const sys::Path& path, uid_t uid, gid_t gid, mode_t mode);

}  // namespace gantry::session
