#pragma once

#include "api/router.hpp"
#include "engine/exec.hpp"

namespace gantry::api {

/// /exec, and the making of execs under /containers.
class ExecRoutes {
 public:
  explicit ExecRoutes(engine::Execs& execs) : execs_(execs) {}

  void add_to(Router& router);

 private:
  Task<Response> create(Request request);
  Task<Response> start(Request request);
  Task<Response> resize(Request request);
  Task<Response> inspect(Request request);

  engine::Execs& execs_;
};

}  // namespace gantry::api
