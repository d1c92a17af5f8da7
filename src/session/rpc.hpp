#pragma once

#include <stop_token>
#include <string>
#include <utility>

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include "base/error.hpp"

/// Calls of gRPC on a client's session, for this module's .cpp files.
namespace gantry::session {

/// What a failed call means to us, with the client's text.
Error to_error(const grpc::Status& status);

/// A call that a stop ends.
class Call {
 public:
  explicit Call(std::stop_token stop) : stop_(std::move(stop)), on_stop_(stop_, [this] { context_.TryCancel(); }) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  grpc::ClientContext& context() noexcept { return context_; }
  /// Throws if the call did not end well; cancelled if that was a stop.
  void check(const grpc::Status& status) const {
    if (stop_.stop_requested()) throw Error(Errc::cancelled, "context canceled");
    if (!status.ok()) throw to_error(status);
  }

 private:
  grpc::ClientContext context_;
  std::stop_token stop_;
  std::stop_callback<std::function<void()>> on_stop_;
};

}  // namespace gantry::session
