#pragma once

#include <cstdint>
#include <string>

#include "protocol/types.hpp"

namespace gantry::shim {

class Server;

/// Where the answer to one request goes. Copies are fine; only the first answer is sent, and none if the connection
/// is gone by then.
class Reply {
 public:
  Reply(Server& server, std::uint64_t connection, std::uint32_t request)
      : server_(&server), connection_(connection), request_(request) {}

  /// An empty success, to be filled and sent.
  protocol::Message success() const { return {protocol::Type::ok, request_}; }
  void ok() const { send(success()); }
  void send(const protocol::Message& message) const;
  void fail(protocol::ErrorCode code, const std::string& text) const;
  void fail(const protocol::RuntimeFailure& failure) const;

  /// Somebody still waits for the answer.
  bool alive() const;
  std::uint64_t connection() const noexcept { return connection_; }
  Server& server() const noexcept { return *server_; }

 private:
  Server* server_;
  std::uint64_t connection_;
  std::uint32_t request_;
};

}  // namespace gantry::shim
