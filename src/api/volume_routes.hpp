#pragma once

#include "api/router.hpp"
#include "volume/volumes.hpp"

namespace gantry::api {

/// /volumes.
class VolumeRoutes {
 public:
  explicit VolumeRoutes(volume::Volumes& volumes) : volumes_(volumes) {}

  void add_to(Router& router);

 private:
  Task<Response> list(Request request);
  Task<Response> inspect(Request request);
  Task<Response> create(Request request);
  Task<Response> update(Request request);
  Task<Response> remove(Request request);
  Task<Response> prune(Request request);

  volume::Volumes& volumes_;
};

}  // namespace gantry::api
