#pragma once

#include "api/router.hpp"
#include "api/system_routes.hpp"
#include "engine/size_cache.hpp"
#include "volume/volumes.hpp"

namespace gantry::api {

/// /volumes.
class VolumeRoutes {
 public:
  VolumeRoutes(volume::Volumes& volumes, boost::asio::any_io_executor loop)
      : volumes_(volumes), sizes_(std::move(loop)) {}

  void add_to(Router& router);
  /// The volumes' part of /system/df, for SystemRoutes::provide_disk_usage.
  Task<DiskUsageKind> disk_usage(ApiVersion version);

 private:
  Task<Response> list(Request request);
  Task<Response> inspect(Request request);
  Task<Response> create(Request request);
  Task<Response> update(Request request);
  Task<Response> remove(Request request);
  Task<Response> prune(Request request);

  volume::Volumes& volumes_;
  engine::SizeCache sizes_;
};

}  // namespace gantry::api
