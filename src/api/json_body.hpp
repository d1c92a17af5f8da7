#pragma once

#include <string>

#include "api/request.hpp"
#include "api/response.hpp"
#include "base/error.hpp"
#include "json/codec.hpp"

/// Structs as request and response bodies. Include it in .cpp files only: the codec is expensive to compile.
namespace gantry::api {

enum class EmptyBody { allowed, refused };

/// Reads and decodes the request's JSON body. Without a body the result is T{}, or, if that is refused,
/// invalid_argument "invalid JSON: got EOF while reading request body". Throws invalid_argument with Docker's texts.
template <class T>
Task<T> read_json(Request request, EmptyBody empty = EmptyBody::refused) {
  const std::string text = co_await request.read_json_text();
  if (text.empty()) {
    if (empty == EmptyBody::refused)
      throw Error(Errc::invalid_argument, "invalid JSON: got EOF while reading request body");
    co_return T{};
  }
  if constexpr (std::is_same_v<T, json::Value>) co_return json::parse(text);
  else co_return json::decode_text<T>(text);
}

template <class T>
Response json_response(int status, const T& value) {
  return Response::json(status, json::encode_text(value));
}

}  // namespace gantry::api
