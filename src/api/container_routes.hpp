#pragma once

#include "api/container_json.hpp"
#include "api/router.hpp"
#include "api/system_routes.hpp"
#include "engine/attach.hpp"
#include "engine/container_store.hpp"
#include "engine/containers.hpp"
#include "engine/lifecycle.hpp"
#include "engine/log_stream.hpp"
#include "engine/services.hpp"
#include "engine/size_cache.hpp"
#include "engine/stats.hpp"

namespace gantry::api {

/// A terminal's `h` or `w` (`word`: "height", "width"). Throws invalid_argument with Docker's text.
std::uint16_t read_dimension(const Query& query, std::string_view name, std::string_view word);

/// /containers, except exec and archive.
class ContainerRoutes {
 public:
  ContainerRoutes(engine::Services& services, engine::ContainerStore& store, engine::Containers& containers,
                  engine::Lifecycle& lifecycle, engine::Attach& attach, engine::LogStreams& logs)
      : services_(services),
        store_(store),
        containers_(containers),
        lifecycle_(lifecycle),
        attach_(attach),
        logs_(logs),
        sizes_(services.loop),
        stats_(services) {}

  void add_to(Router& router);
  /// The containers' part of /system/df, for SystemRoutes::provide_disk_usage.
  Task<DiskUsageKind> disk_usage(ApiVersion version);

 private:
  Task<Response> list(Request request);
  Task<Response> inspect(Request request);
  Task<Response> top(Request request);
  Task<Response> changes(Request request);

  Task<Response> create(Request request);
  Task<Response> start(Request request);
  Task<Response> stop(Request request);
  Task<Response> restart(Request request);
  Task<Response> kill(Request request);
  Task<Response> pause(Request request);
  Task<Response> unpause(Request request);
  Task<Response> resize(Request request);
  Task<Response> rename(Request request);
  Task<Response> update(Request request);
  Task<Response> remove(Request request);
  Task<Response> prune(Request request);

  Task<Response> wait(Request request);
  Task<Response> logs(Request request);
  Task<Response> attach(Request request);
  Task<Response> attach_websocket(Request request);
  Task<Response> stats(Request request);
  Task<Response> export_files(Request request);

  Task<SizesById> measure(std::vector<engine::ContainerPtr> containers, std::chrono::milliseconds max_age,
                          std::chrono::milliseconds limit);

  engine::Services& services_;
  engine::ContainerStore& store_;
  engine::Containers& containers_;
  engine::Lifecycle& lifecycle_;
  engine::Attach& attach_;
  engine::LogStreams& logs_;
  engine::SizeCache sizes_;
  engine::StatsReader stats_;
};

}  // namespace gantry::api
