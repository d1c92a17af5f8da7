#include "api/system_routes.hpp"

#include <algorithm>
#include <chrono>

#include "api/event_stream.hpp"
#include "api/json_body.hpp"
#include "async/timeout.hpp"
#include "base/text.hpp"
#include "base/time.hpp"

namespace gantry::api {
namespace {

constexpr ApiVersion kSystemUsage{1, 52};

/// What older clients expect of GET /info beside or instead of the newest fields. Source: engine-api.md §1.6.
void shape_info(json::Object& info, ApiVersion version) {
  if (version < ApiVersion{1, 44})
    for (auto& runtime : info["Runtimes"].as_object()) runtime.value().as_object().erase("status");
  if (version < ApiVersion{1, 47}) {
    json::Object& registry = info["RegistryConfig"].as_object();
    registry["AllowNondistributableArtifactsCIDRs"] = nullptr;
    registry["AllowNondistributableArtifactsHostnames"] = nullptr;
  }
  if (version < ApiVersion{1, 49}) {
    info.erase("FirewallBackend");
    for (const char* key : {"ContainerdCommit", "RuncCommit", "InitCommit"}) {
      json::Object& commit = info[key].as_object();
      commit["Expected"] = commit["ID"];
    }
  }
  if (version < ApiVersion{1, 50}) {
    info["BridgeNfIptables"] = false;
    info["BridgeNfIp6tables"] = false;
    info.erase("DiscoveredDevices");
  }
  if (version < ApiVersion{1, 25}) {
    // "name=seccomp,profile=builtin" was "seccomp".
    for (auto& option : info["SecurityOptions"].as_array()) {
      const std::string text = json::decode<std::string>(option);
      const std::string_view name = split_once(text, ',').first;
      option = name.starts_with("name=") ? name.substr(5) : name;
    }
  }
}

struct UsageNames {
  const char* type;
  const char* legacy;
  const char* usage;
};
constexpr UsageNames kUsage[] = {
    {"image", "Images", "ImageUsage"},
    {"container", "Containers", "ContainerUsage"},
    {"volume", "Volumes", "VolumeUsage"},
    {"build-cache", "BuildCache", "BuildCacheUsage"},
};

json::Object render_usage(const DiskUsageKind& kind, bool verbose) {
  json::Object out;
  out["ActiveCount"] = kind.active_count;
  out["TotalCount"] = kind.total_count;
  out["Reclaimable"] = kind.reclaimable;
  out["TotalSize"] = kind.total_size;
  if (verbose && !kind.items.empty()) out["Items"] = kind.items;
  return out;
}

std::optional<Timestamp> parse_moment(const Query& query, const std::string& name) {
  const std::string text = query.get(name);
  if (text.empty()) return std::nullopt;
  const auto moment = parse_unix_seconds(text);
  if (!moment) throw Error(Errc::invalid_argument, "invalid value for '" + name + "': " + quote(text) + " is no time");
  return moment;
}

/// What one client of GET /events asked for.
struct EventReader {
  Streamer out;
  Filters filters;
  ApiVersion version;
  EventFraming framing;

  static Task<void> send(std::shared_ptr<EventReader> self, events::Event event) {
    if (!event_is_visible(event, self->version) || !event_matches(event, self->filters)) co_return;
    co_await self->out.write(self->framing.prefix + render_event(event, self->version) + "\n");
  }
  /// Until the client leaves, or was too slow: then the stream ends rather than having a gap.
  static Task<void> follow(std::shared_ptr<EventReader> self, std::shared_ptr<events::Subscription> subscription,
                           Timestamp after) {
    while (subscription->missed == 0) {
      auto event = co_await subscription->queue.pop();
      if (!event) co_return;
      if (event->time > after) co_await send(self, std::move(*event));
    }
  }
};

}  // namespace

void SystemRoutes::provide_disk_usage(std::string type, DiskUsageProvider provider) {
  disk_usage_[std::move(type)] = std::move(provider);
}

void SystemRoutes::add_to(Router& router) {
  static const Route<SystemRoutes> kRoutes[] = {
      {Method::get, "/_ping", &SystemRoutes::ping},
      {Method::head, "/_ping", &SystemRoutes::ping},
      {Method::get, "/version", &SystemRoutes::version},
      {Method::get, "/info", &SystemRoutes::info},
      {Method::get, "/events", &SystemRoutes::events},
      {Method::get, "/system/df", &SystemRoutes::disk_usage},
      {Method::get, "/debug/ops", &SystemRoutes::list_operations},
      {Method::get, "/metrics", &SystemRoutes::render_metrics},
  };
  router.add(*this, kRoutes);
  router_ = &router;
}

Task<Response> SystemRoutes::ping(Request request) {
  Response out = Response::text(200, request.method() == Method::head ? "" : "OK");
  out.header("Builder-Version", "1");
  out.header("Cache-Control", "no-cache, no-store, must-revalidate");
  out.header("Pragma", "no-cache");
  out.header("Swarm", "inactive");
  co_return out;
}

Task<Response> SystemRoutes::version(Request) {
  engine::SystemVersion version = source_.version();
  version.ApiVersion = render_api_version(kMaxApiVersion);
  version.MinAPIVersion = render_api_version(router_->min_version());
  for (engine::VersionComponent& component : version.Components) {
    if (component.Name != "Engine") continue;
    component.Details["ApiVersion"] = version.ApiVersion;
    component.Details["MinAPIVersion"] = version.MinAPIVersion;
  }
  co_return json_response(200, version);
}

Task<Response> SystemRoutes::info(Request request) {
  json::Value info = json::encode(co_await source_.info());
  shape_info(info.as_object(), request.version());
  co_return json_response(200, info);
}

Task<Response> SystemRoutes::events(Request request) {
  const auto since = parse_moment(request.query(), "since");
  const auto until = parse_moment(request.query(), "until");
  if (since && until && *until < *since)
    throw Error(Errc::invalid_argument, "`since` time (" + request.query().get("since") +
                                            ") cannot be after `until` time (" + request.query().get("until") + ")");
  EventFraming framing = choose_event_framing(request.header("Accept").value_or(""), request.version());
  Filters filters = request.query().filters();
  // Subscribed before the history is read and before the header goes out, so that nothing falls in between.
  const auto subscription = bus_.subscribe();
  std::vector<events::Event> history;
  if (since || until) history = bus_.history(since, until);
  const std::string content_type = framing.content_type;
  Streamer out = co_await request.start_stream(200, content_type);
  auto reader = std::make_shared<EventReader>(
      EventReader{std::move(out), std::move(filters), request.version(), std::move(framing)});
  Timestamp last{};
  for (events::Event& event : history) {
    last = event.time;
    co_await EventReader::send(reader, std::move(event));
  }
  const Timestamp present = now();
  if (until && *until <= present) co_return Response::sent();
  if (!until) {
    co_await EventReader::follow(reader, subscription, last);
    co_return Response::sent();
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - present);
  try {
    co_await async::with_timeout(EventReader::follow(reader, subscription, last), left, "events");
  } catch (const Error& e) {
    if (e.code() != Errc::timed_out) throw;
  }
  co_return Response::sent();
}

Task<DiskUsageKind> SystemRoutes::usage_of(std::string type, ApiVersion version) {
  const auto provider = disk_usage_.find(type);
  if (provider == disk_usage_.end()) co_return DiskUsageKind{};
  co_return co_await provider->second(version);
}

Task<Response> SystemRoutes::disk_usage(Request request) {
  const ApiVersion version = request.version();
  std::vector<std::string> wanted;
  if (version >= ApiVersion{1, 42}) wanted = request.query().all("type");
  auto is_wanted = [&](std::string_view type) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), type) != wanted.end();
  };
  for (const std::string& type : wanted)
    if (type != "image" && type != "container" && type != "volume" && type != "build-cache")
      throw Error(Errc::invalid_argument, "unknown object type: " + type);
  const bool verbose = request.query().flag("verbose");
  const bool legacy = version < kSystemUsage || !verbose;

  json::Object usage;
  json::Object lists;
  std::int64_t layers_size = 0;
  std::int64_t builder_size = 0;
  for (const UsageNames& names : kUsage) {
    if (!is_wanted(names.type)) {
      lists[names.legacy] = nullptr;
      continue;
    }
    std::string type = names.type;
    DiskUsageKind kind = co_await usage_of(std::move(type), version);
    if (std::string_view(names.type) == "image") layers_size = kind.total_size;
    if (std::string_view(names.type) == "build-cache" && version < ApiVersion{1, 42})
      for (const json::Value& record : kind.items) builder_size += record.at("Size").to_number<std::int64_t>();
    usage[names.usage] = render_usage(kind, verbose);
    lists[names.legacy] = std::move(kind.items);
  }
  json::Object out;
  if (legacy) {
    out["LayersSize"] = layers_size;
    for (const auto& list : lists) out.emplace(list.key(), list.value());
    out["BuilderSize"] = builder_size;
  }
  if (version >= kSystemUsage)
    for (const auto& kind : usage) out.emplace(kind.key(), kind.value());
  co_return Response::json(200, json::render(out));
}

Task<Response> SystemRoutes::list_operations(Request) {
  json::Array out;
  for (const auto& entry : operations_.list()) {
    json::Object operation;
    operation["What"] = entry.what;
    operation["Subject"] = entry.subject;
    operation["Step"] = entry.step;
    operation["AgeMilliseconds"] = entry.age.count();
    operation["StepAgeMilliseconds"] = entry.step_age.count();
    out.push_back(std::move(operation));
  }
  co_return Response::json(200, json::render(out));
}

Task<Response> SystemRoutes::render_metrics(Request) {
  co_return Response::text(200, metrics_ == nullptr ? "" : metrics_->render());
}

}  // namespace gantry::api
