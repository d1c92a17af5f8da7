#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include <grpcpp/channel.h>

#include "session/session.hpp"
#include "sys/fd.hpp"

namespace gantry::session {

/// The connection of a session. gRPC owns its descriptor; `connection` is a second one, to end it by.
struct Session::Link {
  Link(std::shared_ptr<grpc::Channel> c, sys::Fd fd) : channel(std::move(c)), connection(std::move(fd)) {}
  std::shared_ptr<grpc::Channel> channel;
  sys::Fd connection;
  std::atomic<bool> gone = false;
};

}  // namespace gantry::session
