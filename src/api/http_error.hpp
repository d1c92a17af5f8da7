#pragma once

#include <exception>
#include <string>

#include "api/response.hpp"
#include "api/versions.hpp"
#include "base/error.hpp"

namespace gantry::api {

/// The one place that knows which HTTP status a kind of error has.
int http_status(Errc code) noexcept;
/// `{"message": …}`; plain text for clients older than API 1.24.
Response error_response(int status, const std::string& message, ApiVersion version = kMaxApiVersion);
Response error_response(const Error& error, ApiVersion version = kMaxApiVersion);
/// The reply for whatever a handler threw.
Response error_response(const std::exception_ptr& failure, ApiVersion version = kMaxApiVersion);

}  // namespace gantry::api
