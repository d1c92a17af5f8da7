#include "api/image_routes.hpp"

#include <set>

#include <boost/json.hpp>

#include "api/image_json.hpp"
#include "api/progress_reply.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "image/repair.hpp"
#include "json/json.hpp"

namespace gantry::api {
namespace {

constexpr ApiVersion kPrune{1, 25};
constexpr ApiVersion kPullPlatform{1, 32};
constexpr ApiVersion kSharedSize{1, 42};
constexpr ApiVersion kPushPlatform{1, 46};
constexpr ApiVersion kListManifests{1, 47};
constexpr ApiVersion kPlatformParameter{1, 48};
constexpr ApiVersion kInspectPlatform{1, 49};
constexpr ApiVersion kRemovePlatforms{1, 50};
constexpr ApiVersion kSeveralPlatforms{1, 52};
constexpr ApiVersion kAttestations{1, 55};

image::RegistryAuth auth_of(const Request& request) {
  return image::decode_auth_header(request.header("X-Registry-Auth").value_or(""));
}

/// The `platform` parameter where it is a JSON object.
std::optional<image::Platform> platform_of(const Request& request, ApiVersion since) {
  if (request.version() < since) return std::nullopt;
  const std::string text = request.query().get("platform");
  if (text.empty()) return std::nullopt;
  return parse_platform_parameter(text);
}

std::vector<image::Platform> platforms_of(const Request& request) {
  std::vector<image::Platform> out;
  if (request.version() < kPlatformParameter) return out;
  for (const std::string& text : request.query().all("platform"))
    if (!text.empty()) out.push_back(parse_platform_parameter(text));
  if (out.size() > 1 && request.version() < kSeveralPlatforms)
    throw Error(Errc::invalid_argument, "multiple platform parameters are not supported in this API version");
  return out;
}

/// `docker pull --platform linux/arm64`: plain text here, JSON nowhere.
std::optional<image::Platform> platform_text_of(const Request& request) {
  if (request.version() < kPullPlatform) return std::nullopt;
  const std::string text = request.query().get("platform");
  if (text.empty()) return std::nullopt;
  return image::parse_platform(text);
}

}  // namespace

void ImageRoutes::add_to(Router& router) {
  constexpr RouteOptions kVerb{.cancel = Cancel::never, .min_api = {}};
  static const Route<ImageRoutes> kRoutes[] = {
      {Method::get, "/images/json", &ImageRoutes::list},
      {Method::get, "/images/search", &ImageRoutes::search},
      {Method::get, "/images/get", &ImageRoutes::save_many},
      {Method::get, "/images/{name:.*}/get", &ImageRoutes::save_one},
      {Method::get, "/images/{name:.*}/history", &ImageRoutes::history},
      {Method::get, "/images/{name:.*}/json", &ImageRoutes::inspect},
      {Method::get, "/images/{name:.*}/attestations", &ImageRoutes::attestations, {.min_api = kAttestations}},
      {Method::post, "/images/create", &ImageRoutes::create},
      {Method::post, "/images/load", &ImageRoutes::load},
      {Method::post, "/images/prune", &ImageRoutes::prune, {.cancel = Cancel::never, .min_api = kPrune}},
      {Method::post, "/images/{name:.*}/push", &ImageRoutes::push},
      {Method::post, "/images/{name:.*}/tag", &ImageRoutes::tag, kVerb},
      {Method::delete_, "/images/{name:.*}", &ImageRoutes::remove, kVerb},
      {Method::post, "/auth", &ImageRoutes::log_in},
      {Method::get, "/distribution/{name:.*}/json", &ImageRoutes::distribution},
      {Method::post, "/gantry/repair", &ImageRoutes::repair},
  };
  router.add(*this, kRoutes);
}

Task<Response> ImageRoutes::list(Request request) {
  const ApiVersion version = request.version();
  image::ListOptions options;
  options.filters = request.query().filters();
  options.all = request.query().flag("all");
  options.shared_size = version >= kSharedSize && request.query().flag("shared-size");
  options.manifests = version >= kListManifests && request.query().flag("manifests");
  if (version < kPrune && request.query().has("filter"))
    options.filters.add("reference", request.query().get("filter"));
  json::Array out;
  for (const image::ImageSummary& summary : images_.list(options))
    out.push_back(render_image_summary(summary, version));
  co_return Response::json(200, json::render(std::move(out)));
}

Task<Response> ImageRoutes::create(Request request) {
  if (!request.query().get("fromImage").empty()) co_return co_await pull(request);
  co_return co_await import(request);
}

Task<Response> ImageRoutes::pull(Request request) {
  image::PullRequest wanted;
  wanted.image = request.query().get("fromImage");
  wanted.tag = request.query().get("tag");
  wanted.platform = platform_text_of(request);
  wanted.auth = auth_of(request);
  auto verb = [this, wanted](image::ProgressPtr progress) { return transfers_.pull(wanted, std::move(progress)); };
  co_return co_await reply_with_progress(request, std::move(verb), ReplyStart::with_first_message);
}

namespace {

Task<void> run_import(image::Transfers& transfers, image::ImportRequest request, image::ProgressPtr progress) {
  (void)co_await transfers.import(std::move(request), std::move(progress));
}

}  // namespace

Task<Response> ImageRoutes::import(Request request) {
  const std::string source = request.query().get("fromSrc");
  auto body = std::make_shared<storage::ByteChannel>();
  image::ImportRequest wanted;
  if (source == "-") {
    wanted.archive = body;
  } else {
    wanted.url = source.find("://") == std::string::npos ? "http://" + source : source;
    wanted.origin = source;
  }
  wanted.repository = request.query().get("repo");
  wanted.tag = request.query().get("tag");
  wanted.message = request.query().get("message");
  wanted.changes = request.query().all("changes");
  wanted.platform = platform_text_of(request);
  auto verb = [this, wanted](image::ProgressPtr progress) {
    return run_import(transfers_, wanted, std::move(progress));
  };
  if (source != "-") co_return co_await reply_with_progress(request, std::move(verb), ReplyStart::with_first_message);
  co_return co_await reply_with_progress(request, std::move(verb), ReplyStart::with_first_message, body);
}

Task<Response> ImageRoutes::load(Request request) {
  auto body = std::make_shared<storage::ByteChannel>();
  image::LoadRequest wanted;
  wanted.archive = body;
  wanted.quiet = request.query().flag("quiet", true);
  wanted.platforms = platforms_of(request);
  auto verb = [this, wanted](image::ProgressPtr progress) { return transfers_.load(wanted, std::move(progress)); };
  co_return co_await reply_with_progress(request, std::move(verb), ReplyStart::at_once, body);
}

Task<Response> ImageRoutes::push(Request request) {
  image::PushRequest wanted;
  wanted.image = request.param("name");
  wanted.tag = request.query().get("tag");
  wanted.platform = platform_of(request, kPushPlatform);
  wanted.auth = auth_of(request);
  auto verb = [this, wanted](image::ProgressPtr progress) { return transfers_.push(wanted, std::move(progress)); };
  co_return co_await reply_with_progress(request, std::move(verb), ReplyStart::with_first_message);
}

Task<Response> ImageRoutes::inspect(Request request) {
  const ApiVersion version = request.version();
  const bool manifests = version >= kPlatformParameter && request.query().flag("manifests");
  const auto platform = platform_of(request, kInspectPlatform);
  if (manifests && platform)
    throw Error(Errc::invalid_argument, "conflicting options: manifests and platform options cannot both be set");
  const image::ImagePtr image = images_.get(request.param("name"), platform);
  std::optional<std::vector<image::ManifestSummary>> summaries;
  if (manifests) summaries = images_.list_manifests(image->id);
  co_return Response::json(200, json::render(render_image(*image, summaries, version)));
}

Task<Response> ImageRoutes::history(Request request) {
  const auto platform = platform_of(request, kPlatformParameter);
  co_return Response::json(200, json::render(render_history(images_.history(request.param("name"), platform))));
}

Task<Response> ImageRoutes::attestations(Request request) {
  const std::vector<std::string> platforms = request.query().all("platform");
  if (platforms.size() > 1) throw Error(Errc::invalid_argument, "only one platform value is currently supported");
  std::optional<image::Platform> platform;
  if (!platforms.empty() && !platforms.front().empty()) platform = parse_platform_parameter(platforms.front());
  const image::ImagePtr image = images_.get(request.param("name"), platform);
  const std::vector<std::string> given = request.query().all("type");
  std::set<std::string> types(given.begin(), given.end());
  const auto statements = co_await images_.statements(image, std::move(types), request.query().flag("statement"));
  co_return Response::json(200, json::render(render_statements(statements)));
}

Task<Response> ImageRoutes::tag(Request request) {
  co_await images_.tag(request.param("name"), request.query().get("repo"), request.query().get("tag"));
  co_return Response::empty(201);
}

Task<Response> ImageRoutes::remove(Request request) {
  image::RemoveOptions options;
  options.force = request.query().flag("force");
  options.no_prune = request.query().flag("noprune");
  std::vector<image::Platform> platforms;
  if (request.version() >= kRemovePlatforms)
    for (const std::string& text : request.query().all("platforms"))
      for (image::Platform& platform : parse_platforms_parameter(text)) platforms.push_back(std::move(platform));
  const std::string name = request.param("name");
  std::vector<image::Removed> removed;
  if (platforms.empty()) removed = co_await images_.remove(name, options);
  else removed = co_await images_.remove_platforms(name, std::move(platforms), options.force);
  co_return Response::json(200, json::render(render_removed(removed)));
}

Task<Response> ImageRoutes::prune(Request request) {
  const image::PruneReport report = co_await images_.prune(request.query().filters());
  json::Value removed = nullptr;
  if (!report.removed.empty()) removed = render_removed(report.removed);
  co_return Response::json(200, json::render(json::Object{{"ImagesDeleted", std::move(removed)},
                                                          {"SpaceReclaimed", report.space_reclaimed}}));
}

Task<Response> ImageRoutes::save_one(Request request) {
  image::SaveRequest wanted;
  wanted.names.push_back(request.param("name"));
  co_return co_await save(request, std::move(wanted));
}

Task<Response> ImageRoutes::save_many(Request request) {
  image::SaveRequest wanted;
  wanted.names = request.query().all("names");
  if (wanted.names.empty()) throw Error(Errc::invalid_argument, "no image names were given");
  co_return co_await save(request, std::move(wanted));
}

Task<Response> ImageRoutes::save(Request request, image::SaveRequest wanted) {
  wanted.platforms = platforms_of(request);
  auto stream = co_await transfers_.save(std::move(wanted));
  co_return co_await reply_with_stream(request, "application/x-tar", std::move(stream));
}

Task<Response> ImageRoutes::search(Request request) {
  const std::string term = request.query().get("term");
  const std::int64_t limit = request.query().integer("limit").value_or(0);
  const Filters filters = request.query().filters();
  filters.require_known({"is-automated", "is-official", "stars"});
  const std::optional<bool> official = filters.flag("is-official");
  const std::optional<bool> automated = filters.flag("is-automated");
  std::int64_t stars = 0;
  for (const std::string& text : filters.values("stars")) {
    const auto number = parse_int(text);
    if (!number) throw Error(Errc::invalid_argument, "invalid filter 'stars=[" + text + "]'");
    stars = std::max(stars, *number);
  }
  json::Array out;
  for (const image::SearchResult& result : co_await transfers_.search(term, limit, auth_of(request))) {
    if ((official && result.official != *official) || (automated && *automated) || result.stars < stars) continue;
    out.push_back(json::Object{{"star_count", result.stars},
                               {"is_official", result.official},
                               {"name", result.name},
                               {"is_automated", false},
                               {"description", result.description}});
  }
  co_return Response::json(200, json::render(std::move(out)));
}

Task<Response> ImageRoutes::log_in(Request request) {
  const std::string body = co_await request.read_json_text();
  if (body.empty()) throw Error(Errc::invalid_argument, "invalid JSON: got EOF while reading request body");
  const image::LoginResult result = co_await transfers_.log_in(image::parse_auth(body));
  json::Object out{{"Status", result.status}};
  if (!result.identity_token.empty()) out.emplace("IdentityToken", result.identity_token);
  co_return Response::json(200, json::render(std::move(out)));
}

Task<Response> ImageRoutes::distribution(Request request) {
  const auto info = co_await transfers_.inspect_remote(request.param("name"), auth_of(request));
  json::Array platforms;
  for (const image::Platform& platform : info.platforms) platforms.push_back(platform_json(platform));
  co_return Response::json(200, json::render(json::Object{{"Descriptor", descriptor_json(info.descriptor)},
                                                          {"Platforms", std::move(platforms)}}));
}

namespace {

Task<void> run_repair(image::Transfers& transfers, image::RepairRequest wanted, image::ProgressPtr progress) {
  const image::RepairReport report = co_await transfers.repair(
      wanted, [progress](const image::Damage& damage) { progress->stream(image::render_damage(damage)); });
  progress->stream(image::render_report(report));
  progress->aux(json::render(json::Object{{"Repaired", report.repaired}, {"Unrepaired", report.unrepaired}}));
}

}  // namespace

Task<Response> ImageRoutes::repair(Request request) {
  image::RepairRequest wanted;
  wanted.contents = request.query().flag("contents");
  wanted.credentials = image::decode_auth_config_header(request.header("X-Registry-Config").value_or(""));
  auto verb = [this, wanted](image::ProgressPtr progress) {
    return run_repair(transfers_, wanted, std::move(progress));
  };
  co_return co_await reply_with_progress(request, std::move(verb), ReplyStart::at_once);
}

Task<DiskUsageKind> ImageRoutes::disk_usage(ApiVersion version) {
  DiskUsageKind out;
  const image::Usage usage = images_.usage();
  out.active_count = usage.active;
  out.total_count = usage.images;
  out.reclaimable = usage.reclaimable;
  out.total_size = usage.total_size;
  image::ListOptions options;
  options.shared_size = true;
  for (const image::ImageSummary& summary : images_.list(options)) {
    // Unlike the list, the report counts containers in every version of the API.
    json::Object item = render_image_summary(summary, version);
    item["Containers"] = summary.containers;
    out.items.push_back(std::move(item));
  }
  co_return out;
}

}  // namespace gantry::api
