#include "api/unsupported_routes.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::api {
namespace {

Task<Response> not_a_manager(Request) {
  throw Error(Errc::unavailable,
              "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this "
              "node to swarm and try again.");
}

Task<Response> not_in_a_swarm(Request) { throw Error(Errc::unavailable, "This node is not part of a swarm"); }

Task<Response> no_swarm(Request) { throw Error(Errc::not_implemented, "swarm mode is not supported by this engine"); }

Task<Response> no_checkpoints(Request) {
  throw Error(Errc::not_implemented,
              "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order "
              "to enable it.");
}

Task<Response> list_no_plugins(Request) { co_return Response::json(200, "[]"); }

Task<Response> no_such_plugin(Request request) {
  throw Error(Errc::not_found, "plugin " + quote(request.param("name")) + " not found");
}

Task<Response> no_managed_plugins(Request) {
  throw Error(Errc::not_implemented, "managed plugins are not supported by this engine");
}

void add_swarm(Router& router) {
  router.add(Method::get, "/swarm", not_a_manager);
  router.add(Method::post, "/swarm/init", no_swarm);
  router.add(Method::post, "/swarm/join", no_swarm);
  router.add(Method::post, "/swarm/leave", not_in_a_swarm);
  router.add(Method::post, "/swarm/update", not_a_manager);
  router.add(Method::get, "/swarm/unlockkey", not_a_manager);
  router.add(Method::post, "/swarm/unlock", not_in_a_swarm);
  struct Family {
    const char* path;
    ApiVersion min_api;
  };
  for (const Family& family : {Family{"/nodes", {}}, Family{"/services", {}}, Family{"/tasks", {}},
                               Family{"/secrets", {1, 25}}, Family{"/configs", {1, 30}}}) {
    const std::string path = family.path;
    RouteOptions options;
    options.min_api = family.min_api;
    router.add(Method::get, path, not_a_manager, options);
    router.add(Method::post, path + "/create", not_a_manager, options);
    router.add(Method::get, path + "/{id}", not_a_manager, options);
    router.add(Method::get, path + "/{id}/logs", not_a_manager, options);
    router.add(Method::post, path + "/{id}/update", not_a_manager, options);
    router.add(Method::delete_, path + "/{id}", not_a_manager, options);
  }
}

void add_plugins(Router& router) {
  router.add(Method::get, "/plugins", list_no_plugins);
  router.add(Method::get, "/plugins/privileges", no_managed_plugins);
  router.add(Method::post, "/plugins/pull", no_managed_plugins);
  router.add(Method::post, "/plugins/create", no_managed_plugins);
  router.add(Method::get, "/plugins/{name:.*}/json", no_such_plugin);
  router.add(Method::delete_, "/plugins/{name:.*}", no_such_plugin);
  for (const char* verb : {"enable", "disable", "push", "upgrade", "set"})
    router.add(Method::post, std::string("/plugins/{name:.*}/") + verb, no_such_plugin);
}

}  // namespace

void add_unsupported_routes(Router& router) {
  add_swarm(router);
  add_plugins(router);
  router.add(Method::get, "/containers/{name:.*}/checkpoints", no_checkpoints);
  router.add(Method::post, "/containers/{name:.*}/checkpoints", no_checkpoints);
  router.add(Method::delete_, "/containers/{name:.*}/checkpoints/{checkpoint}", no_checkpoints);
}

}  // namespace gantry::api
