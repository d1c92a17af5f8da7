#pragma once

#include "api/router.hpp"
#include "engine/commit.hpp"

namespace gantry::api {

/// /commit.
class CommitRoutes {
 public:
  CommitRoutes(engine::Services& services, engine::ContainerStore& store, engine::Lifecycle& lifecycle,
               image::Transfers& transfers)
      : commit_(services, store, lifecycle, transfers) {}

  void add_to(Router& router);

 private:
  Task<Response> commit(Request request);

  engine::Commit commit_;
};

}  // namespace gantry::api
