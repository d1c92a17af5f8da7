#include <algorithm>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "api/container_routes.hpp"
#include "api/create_request.hpp"
#include "api/json_body.hpp"
#include "base/text.hpp"
#include "engine/container_filter.hpp"
#include "model/model.hpp"

namespace gantry::api {
namespace {

std::string render_strings(const std::vector<std::string>& items) {
  std::string text;
  JsonWriter json(text);
  json.begin_array();
  for (const std::string& item : items) json.value(item);
  json.end_array();
  return text;
}

std::optional<std::chrono::seconds> read_timeout(const Query& query) {
  const auto seconds = query.integer("t");
  if (!seconds) return std::nullopt;
  return std::chrono::seconds(std::clamp<std::int64_t>(*seconds, -1, 1'000'000'000));
}

std::string read_stop_signal(const Request& request) {
  return request.version() < ApiVersion{1, 42} ? std::string() : request.query().get("signal");
}

}  // namespace

std::uint16_t read_dimension(const Query& query, std::string_view name, std::string_view word) {
  const std::string text = query.get(name);
  const auto number = parse_int(text);
  if (!number || *number < 0 || *number > 0xffffffffLL)
    throw Error(Errc::invalid_argument, "invalid resize " + std::string(word) + " " + quote(text) + ": " +
                                            (number ? "value out of range" : "invalid syntax"));
  return static_cast<std::uint16_t>(std::min<std::int64_t>(*number, 0xffff));
}

namespace {

/// Clients send nothing, or "{}"; long ago they sent a HostConfig.
void refuse_start_body(const Request& request) {
  const auto length = parse_int(request.header("Content-Length").value_or("0"));
  if (request.header("Transfer-Encoding") || !length || *length > 7)
    throw Error(Errc::invalid_argument,
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24");
}

}  // namespace

Task<Response> ContainerRoutes::create(Request request) {
  const std::string body = co_await request.read_json_text();
  engine::CreateRequest wanted = read_create_request(body, {request.version(), services_.host.cgroup.is_v2()});
  wanted.name = request.query().get("name");
  if (request.version() >= ApiVersion{1, 41}) wanted.platform = request.query().get("platform");
  const engine::CreateResult created = co_await containers_.create(std::move(wanted));
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("Id", created.id).key("Warnings").raw(render_strings(created.warnings)).end_object();
  co_return Response::json(201, std::move(text));
}

Task<Response> ContainerRoutes::start(Request request) {
  refuse_start_body(request);
  if (!request.query().get("checkpoint").empty())
    throw Error(Errc::not_implemented, "checkpoints are not supported by this engine");
  co_await lifecycle_.start(request.param("name"));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::stop(Request request) {
  co_await lifecycle_.stop(request.param("name"), read_timeout(request.query()), read_stop_signal(request));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::restart(Request request) {
  co_await lifecycle_.restart(request.param("name"), read_timeout(request.query()), read_stop_signal(request));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::kill(Request request) {
  co_await lifecycle_.kill(request.param("name"), request.query().get("signal"));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::pause(Request request) {
  co_await lifecycle_.pause(request.param("name"));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::unpause(Request request) {
  co_await lifecycle_.unpause(request.param("name"));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::resize(Request request) {
  const std::uint16_t rows = read_dimension(request.query(), "h", "height");
  const std::uint16_t columns = read_dimension(request.query(), "w", "width");
  co_await lifecycle_.resize(request.param("name"), rows, columns);
  co_return Response::empty(200);
}

Task<Response> ContainerRoutes::rename(Request request) {
  co_await containers_.rename(request.param("name"), request.query().get("name"));
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::update(Request request) {
  const std::string body = co_await request.read_json_text();
  if (body.empty()) throw Error(Errc::invalid_argument, "invalid JSON: got EOF while reading request body");
  const json::Value document = json::parse(body);
  auto resources = json::decode<model::Resources>(document);
  std::optional<model::RestartPolicy> policy;
  if (const json::Object* object = document.if_object())
    if (const json::Value* found = json::find(*object, "RestartPolicy"); found != nullptr && !found->is_null())
      policy = json::decode<model::RestartPolicy>(*found, "RestartPolicy");
  if (request.version() < ApiVersion{1, 40}) resources.PidsLimit.reset();
  if (request.version() < ApiVersion{1, 55}) {
    resources.BlkioWeightDevice.reset();
    resources.BlkioDeviceReadBps.reset();
    resources.BlkioDeviceWriteBps.reset();
    resources.BlkioDeviceReadIOps.reset();
    resources.BlkioDeviceWriteIOps.reset();
  }
  const auto warnings = co_await containers_.update(request.param("name"), std::move(resources), std::move(policy));
  co_return Response::json(200, "{\"Warnings\":" + (warnings.empty() ? "null" : render_strings(warnings)) + "}");
}

Task<Response> ContainerRoutes::remove(Request request) {
  engine::RemoveOptions options;
  options.volumes = request.query().flag("v");
  options.force = request.query().flag("force");
  options.link = request.query().flag("link");
  co_await containers_.remove(request.param("name"), options);
  co_return Response::empty(204);
}

Task<Response> ContainerRoutes::prune(Request request) {
  const engine::PruneResult pruned = co_await containers_.prune(engine::prune_filter(request.query().filters()));
  std::string text;
  JsonWriter json(text);
  json.begin_object().key("ContainersDeleted");
  json.raw(pruned.removed.empty() ? "null" : render_strings(pruned.removed));
  json.field("SpaceReclaimed", pruned.reclaimed).end_object();
  co_return Response::json(200, std::move(text));
}

}  // namespace gantry::api
