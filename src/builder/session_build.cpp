#include "builder/session_build.hpp"

#include <thread>

#include <fmt/format.h>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "builder/classic_options.hpp"
#include "builder/failure.hpp"
#include "builder/status_messages.hpp"
#include "json/json.hpp"
#include "model/query.hpp"

namespace gantry::builder {
namespace {

constexpr std::string_view kSessionContext = "client-session";

std::string line(json::Object object) { return json::render(std::move(object)) + "\r\n"; }

/// `outputs`: where the result goes. Nothing, or of type "moby": an image.
std::vector<ExporterRequest> read_outputs(const model::Query& query, const ClassicOptions& options) {
  ExporterRequest image{"moby", {}};
  if (!options.tags.empty()) image.attributes["name"] = join(options.tags, ",");
  const std::string text = query.get("outputs");
  const json::Value value = text.empty() ? json::Value(nullptr) : json::parse(text);
  if (value.is_null() || (value.is_array() && value.get_array().empty())) return {image};
  if (!value.is_array() || value.get_array().size() > 1)
    throw Error(Errc::invalid_argument, "multiple outputs not supported");
  const auto* output = value.get_array().front().if_object();
  const json::Value* type = output == nullptr ? nullptr : json::find(*output, "Type");
  if (type == nullptr || !type->is_string()) throw Error(Errc::invalid_argument, "invalid outputs: Type is missing");
  const std::string name(type->get_string());
  if (name.empty() || name == "moby" || name == "image") return {image};
  if (name == "cacheonly") return {};
  ExporterRequest other{name, {}};
  if (const json::Value* attributes = json::find(*output, "Attrs"); attributes != nullptr && attributes->is_object())
    for (const auto& attribute : attributes->get_object())
      if (attribute.value().is_string()) other.attributes.emplace(attribute.key(), attribute.value().get_string());
  return {other};
}

std::string read_network(const std::string& mode) {
  if (mode == "host" || mode == "none") return mode;
  if (mode.empty() || mode == "default" || mode == "bridge") return {};
  throw Error(Errc::invalid_argument, fmt::format("network mode {} not supported by buildkit", quote(mode)));
}

frontend::OptionMap read_options(const ClassicOptions& options) {
  frontend::OptionMap out;
  if (!options.target.empty()) out["target"] = options.target;
  if (!options.dockerfile.empty()) out["filename"] = options.dockerfile;
  if (!options.remote.empty() && options.remote != kSessionContext) out["context"] = options.remote;
  if (!options.cache_from.empty()) out["cache-from"] = join(options.cache_from, ",");
  for (const auto& [name, value] : options.build_args) out["build-arg:" + name] = value;
  for (const auto& [name, value] : options.labels) out["label:" + name] = value;
  if (options.no_cache) out["no-cache"] = "";
  out["image-resolve-mode"] = options.pull ? "pull" : "default";
  if (!options.platform.empty()) out["platform"] = options.platform;
  if (const std::string network = read_network(options.network_mode); !network.empty())
    out["force-network-mode"] = network;
  std::vector<std::string> hosts;
  for (const std::string& host : options.extra_hosts) {
    const auto [name, address] = split_once(host, ':');
    hosts.push_back(fmt::format("{}={}", name, address));
  }
  if (!hosts.empty()) out["add-hosts"] = join(hosts, ",");
  if (options.shm_size > 0) out["shm-size"] = std::to_string(options.shm_size);
  std::vector<std::string> limits;
  for (const frontend::UlimitOption& limit : options.ulimits)
    limits.push_back(fmt::format("{}={}:{}", limit.name, limit.soft, limit.hard));
  if (!limits.empty()) out["ulimit"] = join(limits, ",");
  if (!options.cgroup_parent.empty()) out["cgroup-parent"] = options.cgroup_parent;
  return out;
}

BuildRequest read_request(const buildlink::Incoming& incoming) {
  const model::Query query = model::Query::parse(incoming.request.Query);
  const ClassicOptions options = read_classic_options(incoming);
  if (options.remote == "upload-request")
    throw Error(Errc::invalid_argument, "a context that is sent beside a build needs a newer client: use buildx");
  BuildRequest out;
  out.ref = options.build_id.empty() ? random_id().substr(0, 25) : options.build_id;
  out.session = query.get("session");
  out.frontend = "dockerfile.v0";
  out.options = read_options(options);
  out.exporters = read_outputs(query, options);
  if (options.network_mode == "host") out.entitlements.emplace_back("network.host");
  return out;
}

/// Sends the build's progress until its end.
void send_progress(Builds& builds, const std::string& ref, buildlink::Exchange& exchange, std::stop_token stop) {
  try {
    const auto reader = builds.read_progress(ref, stop);
    while (const auto batch = reader->next(stop))
      for (const auto& message : to_messages(*batch))
        exchange.write(line({{"id", "moby.buildkit.trace"}, {"aux", base64_encode(message.SerializeAsString())}}));
  } catch (const Error& e) {
    if (e.code() != Errc::cancelled && e.code() != Errc::not_found) throw;  // told by the build itself
  }
}

}  // namespace

bool check_build_request(const buildlink::Incoming& incoming, const buildlink::Settings& settings) {
  const model::Query query = model::Query::parse(incoming.request.Query);
  const std::string version = query.get("version");
  if (!version.empty() && version != "1" && version != "2")
    throw Error(Errc::invalid_argument, fmt::format("invalid version {}", quote(version)));
  if (!query.all("securityopt").empty())
    throw Error(Errc::invalid_argument,
                "the daemon on this platform does not support setting security options on build");
  if (query.flag("squash") && !settings.Experimental)
    throw Error(Errc::invalid_argument, "squash is only supported with experimental mode");
  return version == "2";
}

void serve_session_build(Builds& builds, const buildlink::Incoming& incoming, buildlink::Exchange& exchange,
                         std::stop_token stop) {
  std::exception_ptr failure;
  std::map<std::string, std::string> answer;
  try {
    BuildRequest request = read_request(incoming);
    exchange.start(200);
    std::stop_source reading;
    std::jthread progress([&, ref = request.ref] { send_progress(builds, ref, exchange, reading.get_token()); });
    try {
      answer = builds.run(std::move(request), stop);
    } catch (const Error&) {
      failure = std::current_exception();
    }
    reading.request_stop();
    progress.join();
    if (failure) std::rethrow_exception(failure);
    if (const auto id = answer.find("containerimage.digest"); id != answer.end())
      exchange.write(line({{"id", "moby.image.id"}, {"aux", json::Object{{"ID", id->second}}}}));
    exchange.finish();
  } catch (const Error& e) {
    if (!exchange.started()) return exchange.fail(e);
    exchange.write(line({{"errorDetail", json::Object{{"message", e.message()}}}, {"error", e.message()}}));
    exchange.finish();
  }
}

}  // namespace gantry::builder
