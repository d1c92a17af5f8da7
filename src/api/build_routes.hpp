#pragma once

#include "api/router.hpp"
#include "api/system_routes.hpp"
#include "build/builds.hpp"

namespace gantry::api {

/// /build, /grpc and /session: everything goes on to the builder's process.
class BuildRoutes {
 public:
  BuildRoutes(build::Builds& builds, boost::asio::any_io_executor loop) : builds_(builds), loop_(loop), tasks_(loop) {}

  void add_to(Router& router);
  /// What GET /system/df says of the build cache, from what the builder told last.
  Task<DiskUsageKind> disk_usage(ApiVersion version);
  /// Connections that are carried on for the builder end.
  Task<void> stop();

 private:
  Task<Response> build(Request request);
  Task<Response> prune(Request request);
  Task<Response> cancel(Request request);
  Task<Response> grpc(Request request);
  Task<Response> session(Request request);
  Task<Response> upgrade(Request request, std::string kind);
  Task<void> wait_and_hand_over(protocol::Handover handover, sys::Fd fd);

  build::Builds& builds_;
  boost::asio::any_io_executor loop_;
  async::TaskGroup tasks_;  // connections that have not said anything yet
};

}  // namespace gantry::api
