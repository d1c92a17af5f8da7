#pragma once

#include <cstddef>
#include <memory>

#include "builder/builds.hpp"
#include "builder/services.hpp"
#include "session/sessions.hpp"
#include "sys/fd.hpp"

namespace gantry::builder {

/// The gRPC services of the worker, on connections that the daemon hands over. Thread-safe.
class BuildServer {
 public:
  explicit BuildServer(const Services& services);
  /// As stop().
  ~BuildServer();
  BuildServer(const BuildServer&) = delete;
  BuildServer& operator=(const BuildServer&) = delete;

  /// Serves on a connection (HTTP/2 with prior knowledge, at its first byte) until the client closes it.
  void serve(sys::Fd connection);
  /// The client's session on a connection that came as POST /session, where the client serves.
  void serve_session(sys::Fd connection, session::SessionHeaders headers);

  Builds& builds() noexcept;
  /// Connections, sessions and builds that are under way: 0 means that nobody needs the worker for gRPC.
  std::size_t busy() const;
  /// Ends every call and build; returns when they have ended. No call may come any more. Idempotent.
  void stop();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace gantry::builder
