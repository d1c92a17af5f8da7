#include "image/image_config.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/manifest.hpp"
#include "json/json.hpp"
#include "model/model.hpp"

namespace gantry::image {
namespace {

constexpr std::size_t kMaxHistory = 2048;
constexpr std::size_t kMaxEnv = 4096;
constexpr std::size_t kMaxLabels = 16384;

template <class... Args>
[[noreturn]] void invalid(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(Errc::invalid_argument, "invalid image config: " + fmt::format(text, std::forward<Args>(args)...));
}

std::string get_string(const json::Object& object, std::string_view key) {
  const json::Value* v = json::find(object, key);
  if (v == nullptr || v->is_null()) return {};
  if (!v->is_string()) invalid("{} is not a string", key);
  return std::string(v->get_string());
}

Timestamp get_time(const json::Object& object, std::string_view key) {
  const std::string text = get_string(object, key);
  return text.empty() ? Timestamp{} : parse_rfc3339(text).value_or(Timestamp{});
}

std::vector<std::string> get_diff_ids(const json::Object& object) {
  const json::Value* rootfs = json::find(object, "rootfs");
  if (rootfs == nullptr || !rootfs->is_object()) invalid("rootfs is missing");
  if (const std::string type = get_string(rootfs->get_object(), "type"); type != "layers")
    invalid("rootfs.type is {}", quote(type));
  std::vector<std::string> out;
  const json::Value* ids = json::find(rootfs->get_object(), "diff_ids");
  if (ids == nullptr || ids->is_null()) return out;
  if (!ids->is_array() || ids->get_array().size() > kMaxLayers) invalid("rootfs.diff_ids");
  for (const json::Value& id : ids->get_array()) {
    if (!id.is_string() || !is_valid_digest(std::string_view(id.get_string())))
      invalid("rootfs.diff_ids: not a digest");
    out.emplace_back(id.get_string());
  }
  return out;
}

std::vector<HistoryEntry> get_history(const json::Object& object) {
  std::vector<HistoryEntry> out;
  const json::Value* history = json::find(object, "history");
  if (history == nullptr || history->is_null()) return out;
  if (!history->is_array() || history->get_array().size() > kMaxHistory) invalid("history");
  for (const json::Value& value : history->get_array()) {
    if (!value.is_object()) invalid("history is not an array of objects");
    const json::Object& entry = value.get_object();
    HistoryEntry h;
    h.created = get_time(entry, "created");
    h.created_by = get_string(entry, "created_by");
    h.author = get_string(entry, "author");
    h.comment = get_string(entry, "comment");
    const json::Value* empty = json::find(entry, "empty_layer");
    h.empty_layer = empty != nullptr && empty->is_bool() && empty->get_bool();
    out.push_back(std::move(h));
  }
  return out;
}

void check_bounds(const model::ContainerConfig& config) {
  if (config.Env && config.Env->size() > kMaxEnv) invalid("config.Env has more than {} entries", kMaxEnv);
  if (config.Labels && config.Labels->size() > kMaxLabels)
    invalid("config.Labels has more than {} entries", kMaxLabels);
}

json::Object render_history(const HistoryEntry& h) {
  json::Object out;
  if (h.created != Timestamp{}) out.emplace("created", render_rfc3339_nano(h.created));
  if (!h.created_by.empty()) out.emplace("created_by", h.created_by);
  if (!h.author.empty()) out.emplace("author", h.author);
  if (!h.comment.empty()) out.emplace("comment", h.comment);
  if (h.empty_layer) out.emplace("empty_layer", true);
  return out;
}

/// What an image keeps of a container's config: nothing that belongs to one run of it.
json::Object render_run_config(const model::ContainerConfig& config) {
  json::Value all = model::encode(config);
  json::Object out;
  for (const char* key : {"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
                          "StopSignal", "ArgsEscaped", "Healthcheck", "OnBuild", "Shell"}) {
    json::Value* v = all.get_object().if_contains(key);
    if (v == nullptr || v->is_null() || (v->is_string() && v->get_string().empty())) continue;
    out.emplace(key, std::move(*v));
  }
  return out;
}

}  // namespace

ImageConfig parse_image_config(std::string_view bytes) {
  if (bytes.size() > kMaxConfigBytes) invalid("larger than {} bytes", kMaxConfigBytes);
  const json::Value value = json::parse(bytes);
  if (!value.is_object()) invalid("not an object");
  const json::Object& object = value.get_object();
  ImageConfig out;
  out.created = get_time(object, "created");
  out.author = get_string(object, "author");
  out.comment = get_string(object, "comment");
  out.platform = {get_string(object, "os"), get_string(object, "architecture"), get_string(object, "variant"),
                  get_string(object, "os.version")};
  if (out.platform.os.empty()) out.platform.os = "linux";
  out.diff_ids = get_diff_ids(object);
  out.history = get_history(object);
  if (const json::Value* config = json::find(object, "config"); config != nullptr && !config->is_null())
    out.config = model::decode_container_config(*config);
  check_bounds(out.config);
  return out;
}

std::string render_image_config(const ImageConfig& config) {
  json::Object out{{"architecture", config.platform.architecture}, {"os", config.platform.os}};
  if (!config.platform.variant.empty()) out.emplace("variant", config.platform.variant);
  if (!config.platform.os_version.empty()) out.emplace("os.version", config.platform.os_version);
  if (config.created != Timestamp{}) out.emplace("created", render_rfc3339_nano(config.created));
  if (!config.author.empty()) out.emplace("author", config.author);
  if (!config.comment.empty()) out.emplace("comment", config.comment);
  out.emplace("config", render_run_config(config.config));
  json::Array diff_ids(config.diff_ids.begin(), config.diff_ids.end());
  out.emplace("rootfs", json::Object{{"type", "layers"}, {"diff_ids", std::move(diff_ids)}});
  json::Array history;
  for (const auto& entry : config.history) history.push_back(render_history(entry));
  out.emplace("history", std::move(history));
  return json::render(std::move(out));
}

std::vector<std::string> chain_ids(const std::vector<std::string>& diff_ids) {
  std::vector<std::string> out;
  for (const std::string& diff : diff_ids) out.push_back(out.empty() ? diff : digest_of(out.back() + " " + diff));
  return out;
}

}  // namespace gantry::image
