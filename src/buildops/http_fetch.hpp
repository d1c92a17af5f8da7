#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::buildops {

/// A file from a web server, for ADD and remote contexts.
struct HttpRequest {
  std::string url;  // http or https
  bool head_only = false;
  std::vector<std::string> headers;  // "Name: value"
  std::string http_proxy, https_proxy, no_proxy;
};

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names, of the last answer
};

/// What the sink and the figures are told of.
struct HttpSink {
  std::function<void(std::string_view bytes)> write;  // the body of a 2xx answer; may throw, which ends it
  std::function<void(std::int64_t current, std::int64_t total)> progress;  // total 0: unknown; may be empty
};

/// Follows at most ten redirects, which may lead to http and https only, and to no address that belongs to this
/// machine's surroundings (link-local, multicast). Credentials in headers are not given to other hosts. Blocks. Throws
/// unavailable with the reason when there is no answer, cancelled within a second of a stop.
HttpReply fetch_http(const HttpRequest& request, const HttpSink& sink, std::stop_token stop);

}  // namespace gantry::buildops
