#pragma once

#include <string>
#include <string_view>

#include <boost/json/object.hpp>

#include "image/http_client.hpp"
#include "image/registry_client.hpp"
#include "json/json.hpp"

/// Pieces of the registry's protocol without state. Internal to the module.
namespace gantry::image {

/// "Get": how Go's http package names a method in its errors.
std::string method_word(const std::string& method);
/// "404 Not Found"
std::string status_line(int status);
/// Throws what broke the transport, worded as Go does: `Get "https://host/v2/": dial tcp …`.
[[noreturn]] void throw_transport(const HttpRequest& request, const HttpResponse& response);
/// Whether another address of the same registry may do better.
bool may_try_elsewhere(Failure failure);
std::string basic_header(const RegistryAuth& auth);
/// Throws, naming `what`, unless the text is a JSON object.
json::Object parse_object(const std::string& text, std::string_view what);
/// Empty if there is no such string.
std::string get_string(const json::Object& object, std::string_view key);
/// "host:5000" to "host", "[::1]:5000" to "::1".
std::string host_without_port(std::string_view host);
bool is_literal_address(const std::string& host);
/// From `Link: </v2/<name>/tags/list?last=x&n=100>; rel="next"` what follows the repository's name: "tags/list?…".
/// Empty if there is no further page.
std::string next_page(std::string_view link);

}  // namespace gantry::image
