#pragma once

#include "api/router.hpp"
#include "engine/container_store.hpp"
#include "engine/network_links.hpp"
#include "engine/services.hpp"

namespace gantry::api {

/// /networks.
class NetworkRoutes {
 public:
  NetworkRoutes(engine::Services& services, engine::ContainerStore& store)
      : services_(services), links_(services, store) {}

  void add_to(Router& router);

 private:
  Task<Response> list(Request request);
  Task<Response> inspect(Request request);
  Task<Response> create(Request request);
  Task<Response> remove(Request request);
  Task<Response> connect(Request request);
  Task<Response> disconnect(Request request);
  Task<Response> prune(Request request);

  engine::Services& services_;
  engine::NetworkLinks links_;
};

}  // namespace gantry::api
