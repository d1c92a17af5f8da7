#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gantry::api {

using Headers = std::vector<std::pair<std::string, std::string>>;

/// What a handler returns. Api-Version, Server, Ostype, Date and Content-Length are added by the connection.
class Response {
 public:
  /// No body: 204, 304, or a 200 or 201 with an empty one.
  static Response empty(int status = 204);
  static Response text(int status, std::string body);
  /// `body` is a JSON document; the newline that Docker ends it with is added. See api/json_body.hpp for structs.
  static Response json(int status, std::string body);
  /// The handler has replied through Request::start_stream or Request::hijack.
  static Response sent();

  Response& header(std::string name, std::string value);

  int status() const noexcept { return status_; }
  bool is_sent() const noexcept { return sent_; }
  const std::string& body() const noexcept { return body_; }
  const std::string& content_type() const noexcept { return content_type_; }
  const Headers& headers() const noexcept { return headers_; }

 private:
  int status_ = 200;
  bool sent_ = false;
  std::string content_type_;
  std::string body_;
  Headers headers_;
};

}  // namespace gantry::api
