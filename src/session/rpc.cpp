#include "session/rpc.hpp"

namespace gantry::session {

Error to_error(const grpc::Status& status) {
  const auto code = [&] {
    switch (status.error_code()) {
      case grpc::StatusCode::CANCELLED: return Errc::cancelled;
      case grpc::StatusCode::INVALID_ARGUMENT: return Errc::invalid_argument;
      case grpc::StatusCode::NOT_FOUND: return Errc::not_found;
      case grpc::StatusCode::ALREADY_EXISTS:
      case grpc::StatusCode::FAILED_PRECONDITION: return Errc::conflict;
      case grpc::StatusCode::PERMISSION_DENIED: return Errc::forbidden;
      case grpc::StatusCode::UNAUTHENTICATED: return Errc::unauthorized;
      case grpc::StatusCode::UNIMPLEMENTED: return Errc::not_implemented;
      case grpc::StatusCode::UNAVAILABLE: return Errc::unavailable;
      case grpc::StatusCode::DEADLINE_EXCEEDED: return Errc::timed_out;
      default: return Errc::internal;
    }
  }();
  return Error(code, status.error_message().empty() ? "the client's session failed" : status.error_message());
}

}  // namespace gantry::session
