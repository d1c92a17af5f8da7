#pragma once

#include "api/router.hpp"
#include "engine/archive.hpp"

namespace gantry::api {

/// /containers/{id}/archive: what `docker cp` uses.
class ArchiveRoutes {
 public:
  ArchiveRoutes(engine::Services& services, engine::ContainerStore& store, engine::Lifecycle& lifecycle)
      : archive_(services, store, lifecycle) {}

  void add_to(Router& router);

 private:
  Task<Response> stat(Request request);
  Task<Response> read(Request request);
  Task<Response> write(Request request);

  engine::Archive archive_;
};

/// The JSON of the header X-Docker-Container-Path-Stat. Source: engine-api.md §4.
std::string render_path_stat(const storage::PathStat& stat);
/// st_mode as Go's os.FileMode.
std::uint32_t to_go_mode(mode_t mode) noexcept;

}  // namespace gantry::api
