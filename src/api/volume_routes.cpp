#include "api/volume_routes.hpp"

#include <boost/describe/class.hpp>

#include "api/json_body.hpp"
#include "api/volume_json.hpp"
#include "json/json.hpp"

namespace gantry::api {
namespace wire {

using json::StringMap;

struct CreateVolume {
  std::string Name;
  std::string Driver;
  std::optional<StringMap> DriverOpts;
  std::optional<StringMap> Labels;
  std::optional<json::Value> ClusterVolumeSpec;
};
BOOST_DESCRIBE_STRUCT(CreateVolume, (), (Name, Driver, DriverOpts, Labels, ClusterVolumeSpec))

}  // namespace wire

namespace {

constexpr ApiVersion kPrune{1, 25};
constexpr ApiVersion kClusterVolumes{1, 42};
/// From here on a prune spares named volumes unless "all" is asked for.
constexpr ApiVersion kPruneAnonymousOnly{1, 42};

bool passes(const volume::Volumes& volumes, const volume::Volume& volume, const Filters& filters) {
  if (filters.has("name") && !filters.regex_match("name", volume.name)) return false;
  if (!filters.exact_match("driver", volume.driver)) return false;
  if (!filters.labels_match("label", volume.labels)) return false;
  const auto dangling = filters.flag("dangling");
  return !dangling || *dangling == volumes.users(volume.name).empty();
}

/// `label!`: none of the given labels may match.
bool is_excluded(const volume::Volume& volume, const Filters& filters) {
  for (const std::string& label : filters.values("label!")) {
    Filters one;
    one.add("label", label);
    if (one.labels_match("label", volume.labels)) return true;
  }
  return false;
}

[[noreturn]] void not_in_a_swarm() {
  throw Error(
      Errc::unavailable,
      "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node "
      "to swarm and try again.");
}

}  // namespace

void VolumeRoutes::add_to(Router& router) {
  constexpr RouteOptions kVerb{.cancel = Cancel::never, .min_api = {}};
  static const Route<VolumeRoutes> kRoutes[] = {
      {Method::get, "/volumes", &VolumeRoutes::list},
      {Method::get, "/volumes/{name:.*}", &VolumeRoutes::inspect},
      {Method::post, "/volumes/create", &VolumeRoutes::create, kVerb},
      {Method::post, "/volumes/prune", &VolumeRoutes::prune, {.cancel = Cancel::never, .min_api = kPrune}},
      {Method::put, "/volumes/{name:.*}", &VolumeRoutes::update, {.cancel = Cancel::never, .min_api = kClusterVolumes}},
      {Method::delete_, "/volumes/{name:.*}", &VolumeRoutes::remove, kVerb},
  };
  router.add(*this, kRoutes);
}

Task<Response> VolumeRoutes::list(Request request) {
  const Filters filters = request.query().filters();
  filters.require_known({"dangling", "driver", "label", "name"});
  (void)filters.flag("dangling");  // wrong also where there is no volume to ask
  std::string body;
  JsonWriter json(body);
  json.begin_object().key("Volumes").begin_array();
  for (const volume::Volume& volume : volumes_.list())
    if (passes(volumes_, volume, filters)) write_volume(json, volume);
  json.end_array().key("Warnings").null().end_object();
  co_return Response::json(200, std::move(body));
}

Task<Response> VolumeRoutes::inspect(Request request) {
  std::string body;
  JsonWriter json(body);
  write_volume(json, volumes_.get(request.param("name")));
  co_return Response::json(200, std::move(body));
}

Task<Response> VolumeRoutes::create(Request request) {
  wire::CreateVolume wanted = co_await read_json<wire::CreateVolume>(request);
  if (wanted.ClusterVolumeSpec && !wanted.ClusterVolumeSpec->is_null()) not_in_a_swarm();
  volume::CreateVolume spec;
  spec.name = std::move(wanted.Name);
  spec.driver = std::move(wanted.Driver);
  spec.options = std::move(wanted.DriverOpts).value_or(json::StringMap{});
  spec.labels = std::move(wanted.Labels).value_or(json::StringMap{});
  const volume::Volume made = co_await volumes_.create(std::move(spec));
  std::string body;
  JsonWriter json(body);
  write_volume(json, made);
  co_return Response::json(201, std::move(body));
}

Task<Response> VolumeRoutes::update(Request) {
  not_in_a_swarm();  // only cluster volumes can be changed
  co_return Response::empty();
}

Task<Response> VolumeRoutes::remove(Request request) {
  co_await volumes_.remove(request.param("name"), request.query().flag("force"));
  co_return Response::empty(204);
}

Task<Response> VolumeRoutes::prune(Request request) {
  const Filters filters = request.query().filters();
  filters.require_known({"all", "label", "label!"});
  volume::PruneFilter wanted;
  wanted.all = request.version() < kPruneAnonymousOnly || filters.flag("all").value_or(false);
  wanted.matches = [filters](const volume::Volume& volume) {
    return filters.labels_match("label", volume.labels) && !is_excluded(volume, filters);
  };
  const volume::PruneReport report = co_await volumes_.prune(std::move(wanted));
  std::string body;
  JsonWriter json(body);
  json.begin_object().key("VolumesDeleted").begin_array();
  for (const std::string& name : report.removed) json.value(name);
  json.end_array().field("SpaceReclaimed", report.reclaimed_bytes).end_object();
  co_return Response::json(200, std::move(body));
}

Task<DiskUsageKind> VolumeRoutes::disk_usage(ApiVersion) {
  using namespace std::chrono_literals;
  const std::vector<volume::Volume> all = volumes_.list();
  std::vector<engine::SizeCache::Subject> subjects;
  for (const volume::Volume& volume : all)
    subjects.push_back({volume.name, [this, name = volume.name] { return volumes_.measure(name); }});
  const auto sizes = co_await sizes_.measure(std::move(subjects), 60s, 3s);
  DiskUsageKind usage;
  usage.total_count = static_cast<std::int64_t>(all.size());
  std::string items;
  JsonWriter json(items);
  json.begin_array();
  for (const volume::Volume& volume : all) {
    const auto found = sizes.find(volume.name);
    VolumeUsage own;
    own.size = found == sizes.end() ? -1 : static_cast<std::int64_t>(found->second);
    own.references = static_cast<std::int64_t>(volumes_.users(volume.name).size());
    const std::int64_t bytes = std::max<std::int64_t>(own.size, 0);
    usage.total_size += bytes;
    if (own.references > 0) ++usage.active_count;
    else usage.reclaimable += bytes;
    write_volume(json, volume, own);
  }
  json.end_array();
  usage.items = json::parse(items).as_array();
  co_return usage;
}

}  // namespace gantry::api
