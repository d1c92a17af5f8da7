#include "image/transfers.hpp"

#include <cstdlib>

#include <sys/utsname.h>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/archive_load.hpp"
#include "image/archive_save.hpp"
#include "image/build_image.hpp"
#include "image/build_result.hpp"
#include "image/context.hpp"
#include "image/pull.hpp"
#include "image/push.hpp"
#include "image/repair.hpp"
#include "json/json.hpp"

namespace gantry::image {
namespace {

std::string make_user_agent() {
  utsname kernel{};
  ::uname(&kernel);
  return fmt::format("gantry/{} kernel/{} os/linux arch/{}", GANTRY_VERSION, kernel.release,
                     host_platform().architecture);
}

/// What is configured, else the environment's HTTP_PROXY and so on, in either case of letters.
std::string proxy_setting(const std::string& configured, const char* variable) {
  if (!configured.empty()) return configured;
  for (const std::string& name : {std::string(variable), to_lower(variable)})
    if (const char* value = std::getenv(name.c_str())) return value;
  return {};
}

RegistrySettings registry_settings(const config::Config& config) {
  RegistrySettings out;
  out.mirrors = config.registry_mirrors;
  out.insecure = config.insecure_registries;
  out.proxy = {proxy_setting(config.http_proxy, "HTTP_PROXY"), proxy_setting(config.https_proxy, "HTTPS_PROXY"),
               proxy_setting(config.no_proxy, "NO_PROXY")};
  out.user_agent = make_user_agent();
  return out;
}

Task<bool> refetch_one(Context& context, std::vector<std::string> repositories, Descriptor blob) {
  co_return !(co_await refetch_blob(context, std::move(repositories), std::move(blob))).empty();
}

}  // namespace

void Context::publish(const std::string& action, const std::string& actor, const std::string& name,
                      const Image* image) {
  std::map<std::string, std::string> attributes;
  if (image != nullptr && image->config.Labels) attributes = *image->config.Labels;
  attributes["name"] = name;
  events.publish("image", action, actor, std::move(attributes));
}

struct Transfers::State {
  State(boost::asio::any_io_executor loop, async::Lanes& lanes, Images& images, events::Bus& events,
        const sys::Paths& paths, const config::Config& config)
      : context(std::move(loop), lanes, images, events, paths, registry_settings(config)) {}
  Context context;
};

Transfers::Transfers(boost::asio::any_io_executor loop, async::Lanes& lanes, Images& images, events::Bus& events,
                     const sys::Paths& paths, const config::Config& config)
    : state_(std::make_unique<State>(std::move(loop), lanes, images, events, paths, config)) {
  configure(config);
  images.set_refetch([&context = state_->context](std::vector<std::string> repositories, Descriptor blob) {
    return refetch_one(context, std::move(repositories), std::move(blob));
  });
}

Transfers::~Transfers() { state_->context.images.set_refetch(nullptr); }

void Transfers::configure(const config::Config& config) {
  Context& c = state_->context;
  c.registry.configure(registry_settings(config));
  c.max_downloads = std::max(1, int(config.max_concurrent_downloads));
  c.max_uploads = std::max(1, int(config.max_concurrent_uploads));
  c.max_attempts = std::max(1, int(config.max_download_attempts));
  DownloadSettings downloads;
  downloads.attempts = c.max_attempts;
  c.downloads.configure(downloads);
}

Context& Transfers::context_for_test() noexcept { return state_->context; }

Task<void> Transfers::pull(PullRequest request, ProgressPtr progress) {
  co_await image::pull(state_->context, std::move(request), std::move(progress));
}

Task<void> Transfers::push(PushRequest request, ProgressPtr progress) {
  co_await image::push(state_->context, std::move(request), std::move(progress));
}

Task<void> Transfers::load(LoadRequest request, ProgressPtr progress) {
  co_await image::load(state_->context, std::move(request), std::move(progress));
}

Task<std::string> Transfers::import(ImportRequest request, ProgressPtr progress) {
  co_return co_await image::import(state_->context, std::move(request), std::move(progress));
}

Task<ImagePtr> Transfers::commit(CommitRequest request) {
  co_return co_await image::commit(state_->context, std::move(request));
}

Task<PackedLayer> Transfers::pack_layer(sys::Path directory, std::shared_ptr<const std::atomic<bool>> give_up) {
  co_return co_await image::pack_layer(state_->context, std::move(directory), std::move(give_up));
}

Task<std::optional<Descriptor>> Transfers::find_layer_blob(std::string chain_id) {
  co_return co_await image::find_layer_blob(state_->context, std::move(chain_id));
}

Task<AssembledImage> Transfers::assemble(AssembleRequest request) {
  co_return co_await image::assemble(state_->context, std::move(request));
}

Task<std::shared_ptr<storage::ByteChannel>> Transfers::save(SaveRequest request) {
  co_return co_await image::save(state_->context, std::move(request));
}

Task<RepairReport> Transfers::repair(RepairRequest request, DamageSink sink) {
  co_return co_await image::repair(state_->context, request, std::move(sink));
}

Task<DistributionInfo> Transfers::inspect_remote(std::string image, RegistryAuth auth) {
  co_return co_await image::inspect_remote(state_->context, std::move(image), std::move(auth));
}

Task<LoginResult> Transfers::log_in(RegistryAuth auth) {
  LoginResult out;
  out.identity_token = co_await state_->context.registry.log_in(std::move(auth));
  out.status = "Login Succeeded";
  co_return out;
}

namespace {

SearchResult read_search_result(const json::Object& object) {
  SearchResult out;
  if (const auto* v = object.if_contains("name"); v != nullptr && v->is_string()) out.name = v->get_string();
  if (const auto* v = object.if_contains("description"); v != nullptr && v->is_string())
    out.description = v->get_string();
  if (const auto* v = object.if_contains("star_count"); v != nullptr && v->is_int64()) out.stars = v->get_int64();
  if (const auto* v = object.if_contains("is_official"); v != nullptr && v->is_bool()) out.official = v->get_bool();
  return out;
}

}  // namespace

Task<std::vector<SearchResult>> Transfers::search(std::string term, std::int64_t limit, RegistryAuth auth) {
  if (limit == 0) limit = 25;
  if (limit < 1 || limit > 100)
    throw Error(Errc::invalid_argument, fmt::format("limit {} is outside the range of [1, 100]", limit));
  std::string host = "index.docker.io";
  const auto slash = term.find('/');
  if (slash != std::string::npos) {
    const std::string first = term.substr(0, slash);
    if (first == "localhost" || first.find_first_of(".:") != std::string::npos) {
      if (first != "docker.io" && first != "index.docker.io") host = first;
      term = term.substr(slash + 1);
    }
  }
  if (host == "index.docker.io" && term.starts_with("library/")) term = term.substr(8);
  const std::string url = fmt::format("https://{}/v1/search?q={}&n={}", host, percent_encode(term), limit);
  HttpResponse response = co_await state_->context.registry.get(url, std::move(auth));
  if (response.status != 200) throw Error(Errc::internal, fmt::format("Unexpected status code {}", response.status));
  const json::Value value = json::parse(response.body);
  std::vector<SearchResult> out;
  const auto* results = value.is_object() ? value.get_object().if_contains("results") : nullptr;
  if (results != nullptr && results->is_array())
    for (const json::Value& item : results->get_array())
      if (item.is_object()) out.push_back(read_search_result(item.get_object()));
  co_return out;
}

}  // namespace gantry::image
