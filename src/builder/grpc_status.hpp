#pragma once

#include <exception>

#include <grpcpp/support/status.h>

#include "base/error.hpp"
#include "builder/failure.hpp"

namespace gantry::builder {

/// A failure as a call's status, with its details in grpc-status-details-bin.
inline grpc::Status to_grpc_status(const Error& error) {
  const google::rpc::Status status = describe_failure(error);
  return {static_cast<grpc::StatusCode>(status.code()), status.message(), status.SerializeAsString()};
}

/// Runs a call's work; what it throws becomes the call's status.
template <class Work>
grpc::Status answer(Work&& work) {
  try {
    work();
    return grpc::Status::OK;
  } catch (const Error& e) {
    return to_grpc_status(e);
  } catch (const std::exception& e) {
    return to_grpc_status(Error(Errc::internal, e.what()));
  }
}

}  // namespace gantry::builder
