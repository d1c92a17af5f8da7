#include "api/container_routes.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "base/text.hpp"
#include "engine/container_files.hpp"
#include "engine/container_filter.hpp"
#include "engine/top.hpp"
#include "json/json.hpp"

namespace gantry::api {
namespace {

using namespace std::chrono_literals;

constexpr ApiVersion kPrune{1, 25};

}  // namespace

void ContainerRoutes::add_to(Router& router) {
  constexpr RouteOptions kVerb{.cancel = Cancel::never, .min_api = {}};
  static const Route<ContainerRoutes> kRoutes[] = {
      {Method::get, "/containers/json", &ContainerRoutes::list},
      {Method::get, "/containers/{name:.*}/json", &ContainerRoutes::inspect},
      {Method::get, "/containers/{name:.*}/top", &ContainerRoutes::top},
      {Method::get, "/containers/{name:.*}/changes", &ContainerRoutes::changes},
      {Method::get, "/containers/{name:.*}/export", &ContainerRoutes::export_files},
      {Method::get, "/containers/{name:.*}/logs", &ContainerRoutes::logs},
      {Method::get, "/containers/{name:.*}/stats", &ContainerRoutes::stats},
      {Method::get, "/containers/{name:.*}/attach/ws", &ContainerRoutes::attach_websocket},
      {Method::post, "/containers/create", &ContainerRoutes::create, kVerb},
      {Method::post, "/containers/prune", &ContainerRoutes::prune, {.cancel = Cancel::never, .min_api = kPrune}},
      {Method::post, "/containers/{name:.*}/start", &ContainerRoutes::start, kVerb},
      {Method::post, "/containers/{name:.*}/stop", &ContainerRoutes::stop, kVerb},
      {Method::post, "/containers/{name:.*}/restart", &ContainerRoutes::restart, kVerb},
      {Method::post, "/containers/{name:.*}/kill", &ContainerRoutes::kill, kVerb},
      {Method::post, "/containers/{name:.*}/pause", &ContainerRoutes::pause, kVerb},
      {Method::post, "/containers/{name:.*}/unpause", &ContainerRoutes::unpause, kVerb},
      {Method::post, "/containers/{name:.*}/resize", &ContainerRoutes::resize},
      {Method::post, "/containers/{name:.*}/rename", &ContainerRoutes::rename, kVerb},
      {Method::post, "/containers/{name:.*}/update", &ContainerRoutes::update, kVerb},
      {Method::post, "/containers/{name:.*}/wait", &ContainerRoutes::wait},
      {Method::post, "/containers/{name:.*}/attach", &ContainerRoutes::attach},
      {Method::delete_, "/containers/{name:.*}", &ContainerRoutes::remove, kVerb},
  };
  router.add(*this, kRoutes);
}

Task<Response> ContainerRoutes::list(Request request) {
  engine::ListQuery query;
  query.all = request.query().flag("all");
  query.limit = request.query().integer("limit").value_or(0);
  query.filters = request.query().filters();
  std::vector<engine::ContainerPtr> selected;
  {
    engine::NetworkView networks(services_.networks);
    selected = engine::select_containers(query, store_, services_.images, networks);
  }
  const bool with_sizes = request.query().flag("size");
  SizesById sizes;
  if (with_sizes) sizes = co_await measure(selected, 3s, 60s);
  engine::NetworkView networks(services_.networks);
  co_return Response::json(200, render_container_list(selected, services_, networks, request.version(),
                                                      with_sizes ? &sizes : nullptr, engine::link_names(store_)));
}

Task<Response> ContainerRoutes::inspect(Request request) {
  const engine::ContainerPtr container = store_.get(request.param("name"));
  std::optional<ContainerSizes> size;
  if (request.query().flag("size")) {
    std::vector<engine::ContainerPtr> one{container};
    size = (co_await measure(std::move(one), 3s, 60s))[container->id.str()];
  }
  co_return Response::json(200, render_container(*container, services_, request.version(), size));
}

Task<SizesById> ContainerRoutes::measure(std::vector<engine::ContainerPtr> containers,
                                         std::chrono::milliseconds max_age, std::chrono::milliseconds limit) {
  std::vector<engine::SizeCache::Subject> subjects;
  for (const engine::ContainerPtr& container : containers)
    subjects.push_back({container->id.str(), [this, id = container->id] { return services_.rootfs.upper_size(id); }});
  const std::map<std::string, std::uint64_t> own = co_await sizes_.measure(std::move(subjects), max_age, limit);
  SizesById sizes;
  for (const engine::ContainerPtr& container : containers) {
    const std::string& id = container->id.str();
    ContainerSizes& size = sizes[id];
    if (const auto found = own.find(id); found != own.end()) size.rw = found->second;
    size.root_fs = size.rw + static_cast<std::uint64_t>(services_.layers.chain_size(container->chain_id));
  }
  co_return sizes;
}

Task<DiskUsageKind> ContainerRoutes::disk_usage(ApiVersion version) {
  const std::vector<engine::ContainerPtr> all = store_.list();
  const SizesById sizes = co_await measure(all, 60s, 3s);
  DiskUsageKind usage;
  usage.total_count = static_cast<std::int64_t>(all.size());
  for (const engine::ContainerPtr& container : all) {
    const auto bytes = static_cast<std::int64_t>(sizes.at(container->id.str()).rw);
    usage.total_size += bytes;
    if (container->state.running) ++usage.active_count;
    else usage.reclaimable += bytes;
  }
  engine::NetworkView networks(services_.networks);
  usage.items = json::parse(render_container_list(all, services_, networks, version, &sizes)).as_array();
  co_return usage;
}

Task<Response> ContainerRoutes::top(Request request) {
  const std::string args = request.query().get("ps_args", "-ef");
  const engine::ProcessList list = co_await engine::list_processes(services_, store_, lifecycle_, request.param("name"),
                                                                   args.empty() ? std::string("-ef") : args);
  std::string body;
  JsonWriter json(body);
  const auto write_row = [&json](const std::vector<std::string>& row) {
    json.begin_array();
    for (const std::string& field : row) json.value(field);
    json.end_array();
  };
  json.begin_object().key("Processes").begin_array();
  for (const auto& process : list.processes) write_row(process);
  json.end_array().key("Titles");
  write_row(list.titles);
  json.end_object();
  co_return Response::json(200, std::move(body));
}

Task<Response> ContainerRoutes::changes(Request request) {
  const auto changes = co_await engine::list_changes(services_, store_, request.param("name"));
  if (changes.empty()) co_return Response::json(200, "null");
  std::string body;
  JsonWriter json(body);
  json.begin_array();
  for (const auto& change : changes)
    json.begin_object().field("Path", change.path).field("Kind", static_cast<int>(change.kind)).end_object();
  json.end_array();
  co_return Response::json(200, std::move(body));
}

}  // namespace gantry::api
