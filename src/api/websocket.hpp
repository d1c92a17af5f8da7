#pragma once

#include <memory>
#include <string>

#include "api/request.hpp"
#include "async/task.hpp"

namespace gantry::api {

/// The server's end of a WebSocket over a hijacked connection, for GET /containers/{id}/attach/ws. A copyable handle;
/// one coroutine may read while another writes. Source: RFC 6455. Origin is not checked, as Docker does not.
///
/// Not Beast's: that one needs a socket of its own, and would be a second way of reading a connection that already has
/// buffered bytes, TLS, a watch for hang-ups and limits.
class WebSocket {
 public:
  /// Replies 101 and takes the connection over. Throws invalid_argument if the request is no WebSocket handshake.
  static Task<WebSocket> accept(Request request);

  /// The payload of the next message that is not empty; "" once the client has closed. Answers pings. Throws cancelled
  /// if the connection broke or the client does not keep to the protocol.
  Task<std::string> read();
  /// Sends one message: binary, or text to clients older than API 1.28. Throws cancelled when the client has gone.
  Task<void> write(std::string bytes);
  /// Sends the closing frame, once.
  Task<void> close();

 private:
  struct State;
  explicit WebSocket(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace gantry::api
