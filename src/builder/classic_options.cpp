#include "builder/classic_options.hpp"

#include <algorithm>
#include <utility>

#include <boost/json/array.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/auth.hpp"
#include "image/reference.hpp"
#include "json/json.hpp"
#include "model/query.hpp"

namespace gantry::builder {
namespace {

/// The JSON value of a parameter; nullopt if it is absent, empty or null.
std::optional<json::Value> json_parameter(const model::Query& query, std::string_view name) {
  const std::string text = query.get(name);
  if (text.empty()) return std::nullopt;
  json::Value value = json::parse(text);
  if (value.is_null()) return std::nullopt;
  return value;
}

[[noreturn]] void refuse(std::string_view name, std::string_view wanted) {
  throw Error(Errc::invalid_argument, "error reading " + std::string(name) + ": " + std::string(wanted) + " is wanted");
}

void read_build_args(ClassicOptions& out, const model::Query& query) {
  const auto value = json_parameter(query, "buildargs");
  if (!value) return;
  if (!value->is_object()) refuse("build args", "a JSON object of strings");
  for (const auto& member : value->get_object()) {
    if (member.value().is_null()) out.unset_build_args.emplace_back(member.key());
    else if (member.value().is_string()) out.build_args.emplace(member.key(), member.value().get_string());
    else refuse("build args", "a JSON object of strings");
  }
}

void read_labels(ClassicOptions& out, const model::Query& query) {
  const auto value = json_parameter(query, "labels");
  if (!value) return;
  if (!value->is_object()) refuse("labels", "a JSON object of strings");
  for (const auto& member : value->get_object()) {
    if (!member.value().is_string()) refuse("labels", "a JSON object of strings");
    out.labels.emplace(member.key(), member.value().get_string());
  }
}

void read_ulimits(ClassicOptions& out, const model::Query& query) {
  const auto value = json_parameter(query, "ulimits");
  if (!value) return;
  if (!value->is_array()) refuse("ulimit settings", "a JSON list of limits");
  for (const auto& one : value->get_array()) {
    const auto* object = one.if_object();
    const auto* name = object == nullptr ? nullptr : json::find(*object, "Name");
    const auto* soft = object == nullptr ? nullptr : json::find(*object, "Soft");
    const auto* hard = object == nullptr ? nullptr : json::find(*object, "Hard");
    if (name == nullptr || !name->is_string() || soft == nullptr || !soft->is_int64() || hard == nullptr ||
        !hard->is_int64())
      refuse("ulimit settings", "{\"Name\":\"nofile\",\"Soft\":1024,\"Hard\":2048}");
    out.ulimits.push_back({std::string(name->get_string()), soft->get_int64(), hard->get_int64()});
  }
}

void read_cache_from(ClassicOptions& out, const model::Query& query) {
  const auto value = json_parameter(query, "cachefrom");
  if (!value) return;
  if (!value->is_array()) refuse("cache-from", "a JSON list of images");
  for (const auto& one : value->get_array()) {
    if (!one.is_string()) refuse("cache-from", "a JSON list of images");
    out.cache_from.emplace_back(one.get_string());
  }
}

void read_tags(ClassicOptions& out, const model::Query& query) {
  for (const auto& tag : query.all("t")) {
    if (tag.empty()) continue;
    const image::Reference reference = image::parse_reference(tag);
    if (!reference.digest.empty()) throw Error(Errc::invalid_argument, "build tag cannot contain a digest");
    const std::string name = reference.with_default_tag().familiar();
    if (std::find(out.tags.begin(), out.tags.end(), name) == out.tags.end()) out.tags.push_back(name);
  }
}

}  // namespace

ClassicOptions read_classic_options(const buildlink::Incoming& incoming) {
  const model::Query query = model::Query::parse(incoming.request.Query);
  ClassicOptions out;
  out.dockerfile = query.get("dockerfile");
  out.remote = query.get("remote");
  out.quiet = query.flag("q");
  out.no_cache = query.flag("nocache");
  out.pull = query.flag("pull");
  out.squash = query.flag("squash");
  out.network_mode = query.get("networkmode");
  out.target = query.get("target");
  out.platform = query.get("platform");
  out.cgroup_parent = query.get("cgroupparent");
  out.shm_size = query.integer("shmsize").value_or(0);
  out.extra_hosts = query.all("extrahosts");
  out.build_id = query.get("buildid");
  read_tags(out, query);
  read_build_args(out, query);
  read_labels(out, query);
  read_ulimits(out, query);
  read_cache_from(out, query);
  for (auto& [host, auth] : image::decode_auth_config_header(incoming.header("X-Registry-Config")))
    out.registries[host] = {auth.username, auth.password, auth.identity_token, auth.registry_token};
  return out;
}

buildlink::RegistryAuth auth_for(const ClassicOptions& options, const std::string& reference) {
  const auto parsed = image::try_parse_reference(reference);
  if (!parsed) return {};
  const auto it = options.registries.find(image::auth_host(parsed->domain));
  return it == options.registries.end() ? buildlink::RegistryAuth{} : it->second;
}

}  // namespace gantry::builder
