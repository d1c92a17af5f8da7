#include "api/commit_routes.hpp"

#include "api/json_body.hpp"
#include "api/json_writer.hpp"
#include "base/text.hpp"
#include "model/model.hpp"

namespace gantry::api {

void CommitRoutes::add_to(Router& router) {
  static const Route<CommitRoutes> kRoutes[] = {{Method::post, "/commit", &CommitRoutes::commit}};
  router.add(*this, kRoutes);
}

Task<Response> CommitRoutes::commit(Request request) {
  const Query& query = request.query();
  engine::CommitOptions options;
  options.repository = query.get("repo");
  options.tag = query.get("tag");
  options.author = query.get("author");
  options.comment = query.get("comment");
  options.changes = query.all("changes");
  options.pause = query.flag("pause", true);
  const json::Value body = co_await read_json<json::Value>(request, EmptyBody::allowed);
  // Clients without changes of their own send "null" or an empty object.
  if (body.is_object() && !body.get_object().empty()) options.config = json::decode<model::ContainerConfig>(body);
  const std::string id = co_await commit_.run(query.get("container"), std::move(options));
  std::string text;
  JsonWriter(text).begin_object().field("Id", id).end_object();
  co_return Response::json(201, std::move(text));
}

}  // namespace gantry::api
