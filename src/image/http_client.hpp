#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.hpp"
#include "sys/fd.hpp"

namespace gantry::image {

/// How a connection is proven, for one host.
struct TlsSettings {
  std::string ca_pem;       // certificates trusted beside the system's
  std::string client_cert;  // path; empty: none
  std::string client_key;   // path
  bool verify = true;
};

struct ProxySettings {
  std::string http_proxy;  // empty: none
  std::string https_proxy;
  std::string no_proxy;
};

/// A file that is sent as the request's body, from offset 0.
struct Upload {
  sys::Fd fd;
  std::int64_t size = 0;
  std::function<void(std::int64_t)> sent;  // bytes so far; called on the client's thread
};

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  std::optional<std::string> body;
  std::shared_ptr<Upload> upload;
  TlsSettings tls;
  ProxySettings proxy;
  std::string user_agent;
  /// Where the body of a 2xx answer goes instead of HttpResponse::body. Called on the client's thread; may block on
  /// the disk; what it throws ends the transfer as Failure::sink.
  std::function<void(int status, std::string_view bytes)> sink;
  std::int64_t max_body = 8 << 20;  // of what is kept in `body`; beyond it: Failure::too_large
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(20);
  std::chrono::seconds stall_timeout = std::chrono::seconds(30);  // without a single byte
  std::chrono::milliseconds total_timeout{0};                     // 0: none
};

/// Why there is no (complete) answer.
enum class Failure {
  none,
  lookup,       // the name has no address
  connect,      // refused, unreachable, forbidden address
  tls,          // handshake or certificate; also when the server does not speak TLS
  timed_out,    // no connection, or no byte, in time
  interrupted,  // the connection broke in the middle
  too_large,    // header or body beyond the limits
  sink,         // the sink threw
  other,
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names; repeated ones joined with ", "
  std::string body;
  std::string redirect;  // absolute URL of a Location header
  Failure failure = Failure::none;
  std::string
      failure_text;  // as Go's net package would word it: "dial tcp 127.0.0.1:5000: connect: connection refused"
  std::exception_ptr sink_error;

  std::string header(const std::string& lower_case_name) const;
};

/// HTTP over libcurl, on one thread of its own: any number of transfers, none of which waits for another. Redirects are
/// not followed. Connections are reused. Addresses that no registry has (link-local, multicast, unspecified) are
/// refused at the socket, after name resolution.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();  // breaks every transfer off; their coroutines are not resumed
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// A failed transport is in the result, not thrown. When cancelled it throws, after which the sink is not called any
  /// more.
  Task<HttpResponse> send(HttpRequest request);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "https://user:pw@host:5000/path" in parts; nullopt if it is not an http(s) URL.
struct Url {
  std::string scheme;
  std::string authority;  // host[:port], without user info
  std::string host;
  std::string port;  // as written; may be empty
  std::string rest;  // path and query, begins with "/"
};
std::optional<Url> parse_url(std::string_view text);
std::string percent_encode(std::string_view text);

}  // namespace gantry::image
