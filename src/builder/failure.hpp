#pragma once

#include "base/error.hpp"
#include "proto/rpc_status.pb.h"

namespace gantry::builder {

/// An error that a client told us, to be told back exactly so.
class ToldFailure : public Error {
 public:
  explicit ToldFailure(google::rpc::Status status);
  const google::rpc::Status& status() const noexcept { return status_; }

 private:
  google::rpc::Status status_;
};

/// How an error travels to clients: a gRPC code and the text, with the place in the Dockerfile, the vertex and the exit
/// status beside them where they are known (buildkit.md §2.10). Most are UNKNOWN, because clients print the names of
/// all other codes before the text.
google::rpc::Status describe_failure(const Error& error);

}  // namespace gantry::builder
