#include "engine/log_config.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/regex.hpp"
#include "base/text.hpp"
#include "logs/format.hpp"

namespace gantry::engine {
namespace {

constexpr const char* kNoTag = "{{.ID}}";  // the tag of drivers that always have one
constexpr std::int64_t kMostFiles = 1000;

[[noreturn]] void invalid(const std::string& text) { throw Error(Errc::invalid_argument, text); }

std::string value_of(const logs::Options& options, const std::string& key, std::string_view fallback = "") {
  const auto it = options.find(key);
  return it == options.end() ? std::string(fallback) : it->second;
}

std::string program_and_args(const Container& container) {
  std::string command = container.path;
  for (const std::string& arg : container.args) command += " " + arg;
  return command;
}

/// The field of a template, or nullopt if there is none of that name.
std::optional<std::string> tag_field(std::string_view name, const Container& container) {
  const std::string id = container.id.str();
  if (name == "ID") return id.substr(0, 12);
  if (name == "FullID" || name == "ContainerID") return id;
  if (name == "Name") return container.name;
  if (name == "ContainerName") return "/" + container.name;
  if (name == "ImageID") return container.image_id.substr(0, 12);
  if (name == "ImageFullID" || name == "ContainerImageID") return container.image_id;
  if (name == "ImageName" || name == "ContainerImageName") return container.image_ref;
  if (name == "DaemonName") return "docker";
  if (name == "Command") return program_and_args(container);
  if (name == "ContainerEntrypoint") return container.path;
  return std::nullopt;
}

[[noreturn]] void bad_template(const std::string& what) { invalid("template: log-tag:1: " + what); }

std::string label_of(std::string_view argument, const Container& container) {
  if (argument.size() < 2 || !argument.starts_with('"') || !argument.ends_with('"'))
    bad_template("bad argument of index: " + std::string(argument));
  const std::string key(argument.substr(1, argument.size() - 2));
  if (!container.config.Labels) return "";
  const auto it = container.config.Labels->find(key);
  return it == container.config.Labels->end() ? "" : it->second;
}

std::string apply_function(std::string value, std::string_view function) {
  if (function == "lower") return to_lower(value);
  if (function == "upper") return to_upper(value);
  const auto [name, argument] = split_once(function, ' ');
  const auto length = parse_int(trim(argument));
  if (name != "truncate" || !length || *length < 0) bad_template("function " + quote(name) + " not defined");
  return value.substr(0, static_cast<std::size_t>(*length));
}

std::string evaluate(std::string_view action, const Container& container) {
  std::string_view text = action;
  if (text.starts_with('-')) text.remove_prefix(1);
  if (text.ends_with('-')) text.remove_suffix(1);
  std::vector<std::string> steps = split(text, '|');
  const std::string_view first = trim(steps.front());
  constexpr std::string_view kIndex = "index .ContainerLabels ";
  std::string value;
  if (first.starts_with(kIndex)) {
    value = label_of(trim(first.substr(kIndex.size())), container);
  } else if (first.starts_with('.')) {
    const auto field = tag_field(first.substr(1), container);
    if (!field)
      bad_template(fmt::format("executing \"log-tag\" at <{}>: can't evaluate field {} in type *logger.Info", first,
                               first.substr(1)));
    value = *field;
  } else {
    bad_template("function " + quote(first) + " not defined");
  }
  for (std::size_t i = 1; i < steps.size(); ++i) value = apply_function(std::move(value), trim(steps[i]));
  return value;
}

/// Adds those of `all` that a list names or an expression finds.
void choose(const std::map<std::string, std::string>& all, const std::string& list, const std::string& expression,
            std::map<std::string, std::string>& into) {
  for (const std::string& name : split(list, ','))
    if (const auto it = all.find(name); it != all.end()) into[it->first] = it->second;
  if (expression.empty()) return;
  const auto regex = Regex::compile(expression);
  if (!regex) invalid("error parsing regexp: " + quote(expression));
  for (const auto& [key, value] : all)
    if (regex->found_in(key)) into[key] = value;
}

std::string json_object(const std::map<std::string, std::string>& values) {
  if (values.empty()) return "";
  std::string out;
  const auto put = [&out](std::string_view text) {
    std::string escaped(text.size() * logs::kWorstEscape + 32, '\0');
    const char* const end = logs::write_escaped(escaped.data(), text.data(), text.size());
    out.append("\"").append(escaped.data(), static_cast<std::size_t>(end - escaped.data())) += '"';
  };
  for (const auto& [key, value] : values) {
    out += out.empty() ? '{' : ',';
    put(key);
    out += ':';
    put(value);
  }
  return out + "}";
}

/// What gantry-log is told: see logdriver/settings.hpp.
std::vector<std::string> driver_settings(const Container& container, const std::string& driver,
                                         const logs::Options& options) {
  std::map<std::string, std::string> settings = options;
  settings["driver"] = driver;
  settings["tag"] = render_log_tag(value_of(options, "tag").empty() ? kNoTag : value_of(options, "tag"), container);
  settings["container_id"] = container.id.str();
  settings["container_name"] = "/" + container.name;
  settings["image_id"] = container.image_id;
  settings["image_name"] = container.image_ref;
  settings["command"] = program_and_args(container);
  settings["created"] = render_rfc3339_nano(container.created);
  settings["drop"] = logs::drops_when_full(driver, options) ? "1" : "0";
  settings["buffer"] = std::to_string(logs::buffer_size(options));
  for (const auto& [key, value] : log_attributes(container, options)) settings["extra." + key] = value;
  std::vector<std::string> pairs;
  for (const auto& [key, value] : settings)
    if (key.find('=') == std::string::npos) pairs.push_back(key + "=" + value);
  return pairs;
}

}  // namespace

void complete_log_config(model::LogConfig& log, const config::Config& daemon) {
  if (log.Type.empty()) log.Type = daemon.log_driver;
  if (!log.Config) log.Config.emplace();
  for (const auto& [key, value] : daemon.log_opts)
    if (log.Type == daemon.log_driver || key.starts_with("cache-")) log.Config->emplace(key, value);
  if (log.Type == "none") return;
  logs::validate_options(log.Type, *log.Config);
  (void)log_file_options(log.Type, *log.Config);
}

LogFileOptions log_file_options(const std::string& driver, const logs::Options& options) {
  const bool own = logs::is_file_driver(driver);
  const bool json = driver == "json-file";
  const std::string prefix = own ? "" : "cache-";
  // Rotation is on unless it is turned off: a container must not fill the disk because nobody thought of its log.
  const std::string max_size = value_of(options, prefix + "max-size", config::kDefaultLogMaxSize);
  const bool sized = json && options.contains("max-size");
  LogFileOptions out;
  if (max_size != "-1") {
    const auto size = parse_size(max_size);
    if (!size || *size <= 0)
      invalid(fmt::format("invalid {}max-size {}: use a size such as 10m, or -1", prefix, quote(max_size)));
    out.max_size = static_cast<std::uint64_t>(*size);
  }
  const auto count = parse_int(value_of(options, prefix + "max-file", sized ? "1" : config::kDefaultLogMaxFile));
  if (!count || *count < 1 || *count > kMostFiles) invalid(prefix + "max-file cannot be less than 1");
  out.max_file = static_cast<std::uint32_t>(*count);
  const std::string compress = value_of(options, prefix + "compress");
  out.compress = compress.empty() ? !json : logs::parse_bool(compress);
  const bool rotates = out.max_file > 1 && out.max_size > 0;
  if (json && out.compress && !rotates)
    invalid("compress cannot be true when max-file is less than 2 or max-size is not set");
  if (driver == "local" && out.compress && !rotates) invalid("compression cannot be enabled when max file count is 1");
  out.compress = out.compress && rotates;
  return out;
}

sys::Path log_file(const sys::Paths& paths, const Container& container) {
  const std::string& driver = container.host.LogConfig.Type;
  if (!container.log_path.empty()) return container.log_path;
  // These are not in inspect's LogPath, as with Docker: what is in them is nobody else's business.
  if (driver == "local") return paths.container(container.id.str()) / "container.log";
  if (logs::keeps_cache(driver, container.host.LogConfig.Config.value_or(json::StringMap{})))
    return paths.container(container.id.str()) / "container-cached.log";
  return {};
}

void fill_log_config(protocol::ShimConfig& config, const sys::Paths& paths, const Container& container) {
  const std::string& driver = container.host.LogConfig.Type;
  const logs::Options options = container.host.LogConfig.Config.value_or(json::StringMap{});
  config.log_path = log_file(paths, container).string();
  if (driver == "none") return;
  try {
    const LogFileOptions file = log_file_options(driver, options);
    config.log = {file.max_size, file.max_file};
    config.log_compress = file.compress && !config.log_path.empty();
    if (value_of(options, "mode") == "non-blocking") config.log_buffer = logs::buffer_size(options);
    auto attributes = log_attributes(container, options);
    const std::string tag = value_of(options, "tag");
    if (!tag.empty()) attributes["tag"] = render_log_tag(tag, container);
    config.log_attrs = json_object(attributes);
    if (!logs::is_remote_driver(driver)) return;
    config.log_settings = driver_settings(container, driver, options);
    config.log_drops = logs::drops_when_full(driver, options);
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    throw Error(Errc::internal, "failed to initialize logging driver: " + e.message());
  }
}

std::map<std::string, std::string> log_attributes(const Container& container, const logs::Options& options) {
  std::map<std::string, std::string> labels;
  if (container.config.Labels)
    for (const auto& [key, value] : *container.config.Labels) labels.emplace(key, value);
  std::map<std::string, std::string> variables;
  if (container.config.Env)
    for (const std::string& variable : *container.config.Env)
      if (variable.find('=') != std::string::npos) {
        const auto [name, value] = split_once(variable, '=');
        variables[std::string(name)] = value;
      }
  std::map<std::string, std::string> out;
  choose(labels, value_of(options, "labels"), value_of(options, "labels-regex"), out);
  choose(variables, value_of(options, "env"), value_of(options, "env-regex"), out);
  return out;
}

std::string render_log_tag(const std::string& tag, const Container& container) {
  std::string out;
  std::string_view rest = tag;
  for (;;) {
    const std::size_t open = rest.find("{{");
    out += rest.substr(0, open);
    if (open == std::string_view::npos) return out;
    const std::size_t close = rest.find("}}", open);
    if (close == std::string_view::npos) bad_template("unclosed action");
    out += evaluate(trim(rest.substr(open + 2, close - open - 2)), container);
    rest.remove_prefix(close + 2);
  }
}

}  // namespace gantry::engine
