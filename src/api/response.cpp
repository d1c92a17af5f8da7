#include "api/response.hpp"

namespace gantry::api {

Response Response::empty(int status) {
  Response out;
  out.status_ = status;
  return out;
}

Response Response::text(int status, std::string body) {
  Response out;
  out.status_ = status;
  out.content_type_ = "text/plain; charset=utf-8";
  out.body_ = std::move(body);
  return out;
}

Response Response::json(int status, std::string body) {
  Response out;
  out.status_ = status;
  out.content_type_ = "application/json";
  out.body_ = std::move(body);
  out.body_ += '\n';
  return out;
}

Response Response::sent() {
  Response out;
  out.sent_ = true;
  return out;
}

Response& Response::header(std::string name, std::string value) {
  headers_.emplace_back(std::move(name), std::move(value));
  return *this;
}

}  // namespace gantry::api
