#include "api/http_error.hpp"

#include <boost/json.hpp>
#include <boost/system/system_error.hpp>

#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::api {
namespace {

/// JSON is UTF-8, whatever bytes a message quotes.
std::string readable(const std::string& message) {
  if (is_valid_utf8(message)) return message;
  std::string out = message;
  for (char& c : out)
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  return out;
}

}  // namespace

int http_status(Errc code) noexcept {
  switch (code) {
    case Errc::invalid_argument: return 400;
    case Errc::not_found: return 404;
    case Errc::conflict: return 409;
    case Errc::not_modified: return 304;
    case Errc::unauthorized: return 401;
    case Errc::forbidden: return 403;
    case Errc::unavailable: return 503;
    case Errc::not_implemented: return 501;
    case Errc::cancelled:
    case Errc::timed_out:
    case Errc::corrupted:
    case Errc::internal: return 500;
  }
  return 500;
}

Response error_response(int status, const std::string& message, ApiVersion version) {
  if (status == 304) return Response::empty(304);
  if (version < ApiVersion{1, 24}) {
    Response out = Response::text(status, readable(message) + "\n");
    out.header("X-Content-Type-Options", "nosniff");
    return out;
  }
  json::Object body;
  body["message"] = readable(message);
  return Response::json(status, json::render(body));
}

Response error_response(const Error& error, ApiVersion version) {
  return error_response(http_status(error.code()), error.message(), version);
}

Response error_response(const std::exception_ptr& failure, ApiVersion version) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& e) {
    return error_response(e, version);
  } catch (const boost::system::system_error& e) {
    // What the event loop throws: a wait that was cancelled.
    return error_response(500, e.code().message(), version);
  } catch (const std::bad_alloc&) {
    return error_response(503, "out of memory", version);
  } catch (const std::exception& e) {
    return error_response(500, e.what(), version);
  }
}

}  // namespace gantry::api
