#include "frontend/image_model.hpp"

#include <utility>

#include <boost/json/array.hpp>

#include "base/error.hpp"
#include "json/json.hpp"

namespace gantry::frontend {
namespace {

constexpr std::string_view kDefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Takes a member out of an object, so that what is left is what nobody knows.
std::optional<json::Value> take(json::Object& object, std::string_view name) {
  auto it = object.find(name);
  if (it == object.end()) return std::nullopt;
  json::Value value = std::move(it->value());
  object.erase(it);
  if (value.is_null()) return std::nullopt;
  return value;
}

[[noreturn]] void wrong_type(std::string_view name) {
  throw Error(Errc::invalid_argument, "the base image's config is not usable: " + std::string(name) +
                                          " is not of the type that an image config has there");
}

std::string take_text(json::Object& object, std::string_view name) {
  auto value = take(object, name);
  if (!value) return {};
  if (!value->is_string()) wrong_type(name);
  return std::string(value->get_string());
}

std::optional<std::vector<std::string>> take_list(json::Object& object, std::string_view name) {
  auto value = take(object, name);
  if (!value) return std::nullopt;
  if (!value->is_array()) wrong_type(name);
  std::vector<std::string> out;
  for (const auto& one : value->get_array()) {
    if (!one.is_string()) wrong_type(name);
    out.emplace_back(one.get_string());
  }
  return out;
}

std::set<std::string> take_set(json::Object& object, std::string_view name) {
  auto value = take(object, name);
  if (!value) return {};
  if (!value->is_object()) wrong_type(name);
  std::set<std::string> out;
  for (const auto& member : value->get_object()) out.emplace(member.key());
  return out;
}

std::map<std::string, std::string> take_map(json::Object& object, std::string_view name) {
  auto value = take(object, name);
  if (!value) return {};
  if (!value->is_object()) wrong_type(name);
  std::map<std::string, std::string> out;
  for (const auto& member : value->get_object()) {
    if (!member.value().is_string()) wrong_type(name);
    out.emplace(member.key(), member.value().get_string());
  }
  return out;
}

std::chrono::nanoseconds nanoseconds_of(const json::Object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  return std::chrono::nanoseconds(value != nullptr && value->is_int64() ? value->get_int64() : 0);
}

std::optional<dockerfile::HealthcheckInstruction> take_health(json::Object& object) {
  auto value = take(object, "Healthcheck");
  if (!value) return std::nullopt;
  if (!value->is_object()) wrong_type("Healthcheck");
  json::Object& health = value->get_object();
  dockerfile::HealthcheckInstruction out;
  out.interval = nanoseconds_of(health, "Interval");
  out.timeout = nanoseconds_of(health, "Timeout");
  out.start_period = nanoseconds_of(health, "StartPeriod");
  out.start_interval = nanoseconds_of(health, "StartInterval");
  if (const auto* retries = health.if_contains("Retries"); retries != nullptr && retries->is_int64())
    out.retries = static_cast<int>(retries->get_int64());
  out.test = take_list(health, "Test").value_or(std::vector<std::string>{});
  return out;
}

json::Array array_of(const std::vector<std::string>& list) {
  json::Array out;
  for (const auto& one : list) out.emplace_back(one);
  return out;
}

json::Object set_of(const std::set<std::string>& names) {
  json::Object out;
  for (const auto& one : names) out[one] = json::Object();
  return out;
}

json::Object health_object(const dockerfile::HealthcheckInstruction& health) {
  json::Object out;
  if (!health.test.empty()) out["Test"] = array_of(health.test);
  if (health.interval.count() != 0) out["Interval"] = health.interval.count();
  if (health.timeout.count() != 0) out["Timeout"] = health.timeout.count();
  if (health.start_period.count() != 0) out["StartPeriod"] = health.start_period.count();
  if (health.start_interval.count() != 0) out["StartInterval"] = health.start_interval.count();
  if (health.retries != 0) out["Retries"] = health.retries;
  return out;
}

}  // namespace

ImageModel ImageModel::scratch(const image::Platform& platform) {
  ImageModel out;
  out.platform_ = platform;
  out.working_directory = "/";
  out.ensure_path();
  return out;
}

ImageModel ImageModel::from_config(std::string_view bytes) {
  json::Value document = json::parse(bytes);
  if (!document.is_object()) throw Error(Errc::invalid_argument, "the base image's config is not a JSON object");
  ImageModel out;
  json::Object top = std::move(document.get_object());
  out.platform_.architecture = take_text(top, "architecture");
  out.platform_.os = take_text(top, "os");
  out.platform_.variant = take_text(top, "variant");
  out.platform_.os_version = take_text(top, "os.version");
  out.os_features_ = take_list(top, "os.features").value_or(std::vector<std::string>{});
  out.author = take_text(top, "author");
  // What only the classic builder's images have says nothing about what is built on them.
  for (const char* name : {"created", "id", "parent", "container", "container_config", "docker_version",
                           "moby.buildkit.cache.v0", "moby.buildkit.buildinfo.v1"})
    top.erase(name);
  if (auto rootfs = take(top, "rootfs"); rootfs && rootfs->is_object())
    if (auto* ids = rootfs->get_object().if_contains("diff_ids"); ids != nullptr && ids->is_array())
      out.diff_ids_ = std::move(ids->get_array());
  if (auto history = take(top, "history"); history && history->is_array()) out.history_ = history->get_array();
  if (auto value = take(top, "config")) {
    if (!value->is_object()) wrong_type("config");
    json::Object config = std::move(value->get_object());
    out.user = take_text(config, "User");
    out.exposed_ports = take_set(config, "ExposedPorts");
    out.env = take_list(config, "Env").value_or(std::vector<std::string>{});
    out.entrypoint = take_list(config, "Entrypoint");
    out.cmd = take_list(config, "Cmd");
    out.volumes = take_set(config, "Volumes");
    out.working_directory = take_text(config, "WorkingDir");
    out.labels = take_map(config, "Labels");
    out.stop_signal = take_text(config, "StopSignal");
    if (auto escaped = take(config, "ArgsEscaped")) out.args_escaped = escaped->is_bool() && escaped->get_bool();
    out.health_check = take_health(config);
    out.on_build = take_list(config, "OnBuild").value_or(std::vector<std::string>{});
    out.shell = take_list(config, "Shell").value_or(std::vector<std::string>{});
    // Of the container that made the image, not of the image.
    for (const char* name : {"Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty",
                             "OpenStdin", "StdinOnce", "Image", "MacAddress", "NetworkDisabled"})
      config.erase(name);
    out.config_ = std::move(config);
  }
  out.top_ = std::move(top);
  out.ensure_path();
  return out;
}

void ImageModel::ensure_path() {
  for (const auto& one : env)
    if (one.starts_with("PATH=")) return;
  env.emplace_back(kDefaultPath);
}

void ImageModel::set_env(const std::string& name, const std::string& value) {
  const std::string prefix = name + "=";
  for (auto& one : env) {
    if (!one.starts_with(prefix)) continue;
    one = prefix + value;
    return;
  }
  env.push_back(prefix + value);
}

void ImageModel::add_history(std::string created_by, std::string comment, bool empty_layer,
                             std::optional<Timestamp> created) {
  json::Object item;
  if (created) item["created"] = render_rfc3339_nano(*created);
  item["created_by"] = std::move(created_by);
  if (!comment.empty()) item["comment"] = std::move(comment);
  if (empty_layer) item["empty_layer"] = true;
  history_.push_back(std::move(item));
}

boost::json::object ImageModel::render_config() const {
  json::Object out;
  if (!user.empty()) out["User"] = user;
  if (!exposed_ports.empty()) out["ExposedPorts"] = set_of(exposed_ports);
  if (!env.empty()) out["Env"] = array_of(env);
  if (entrypoint && !entrypoint->empty()) out["Entrypoint"] = array_of(*entrypoint);
  if (cmd && !cmd->empty()) out["Cmd"] = array_of(*cmd);
  if (!volumes.empty()) out["Volumes"] = set_of(volumes);
  if (!working_directory.empty()) out["WorkingDir"] = working_directory;
  if (!labels.empty()) {
    json::Object object;
    for (const auto& [name, value] : labels) object[name] = value;
    out["Labels"] = std::move(object);
  }
  if (!stop_signal.empty()) out["StopSignal"] = stop_signal;
  if (args_escaped) out["ArgsEscaped"] = true;
  if (health_check) out["Healthcheck"] = health_object(*health_check);
  if (!on_build.empty()) out["OnBuild"] = array_of(on_build);
  if (!shell.empty()) out["Shell"] = array_of(shell);
  for (const auto& member : config_) out[member.key()] = member.value();
  return out;
}

std::string ImageModel::render() const {
  std::map<std::string, json::Value> sorted;
  for (const auto& member : top_) sorted.emplace(member.key(), member.value());
  sorted["architecture"] = platform_.architecture;
  sorted["os"] = platform_.os;
  if (!platform_.variant.empty()) sorted["variant"] = platform_.variant;
  if (!platform_.os_version.empty()) sorted["os.version"] = platform_.os_version;
  if (!os_features_.empty()) sorted["os.features"] = array_of(os_features_);
  if (!author.empty()) sorted["author"] = author;
  if (created_) sorted["created"] = render_rfc3339_nano(*created_);
  sorted["config"] = render_config();
  json::Object rootfs;
  rootfs["type"] = "layers";
  rootfs["diff_ids"] = diff_ids_;
  sorted["rootfs"] = std::move(rootfs);
  if (!history_.empty()) sorted["history"] = history_;
  json::Object out;
  for (auto& [name, value] : sorted) out[name] = std::move(value);
  return json::render(out);
}

std::vector<std::string> on_build_triggers(std::string_view config) { return ImageModel::from_config(config).on_build; }

}  // namespace gantry::frontend
