#include "image/config_changes.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::image {
namespace {

using model::ContainerConfig;

[[noreturn]] void invalid(const std::string& text) { throw Error(Errc::invalid_argument, text); }

/// `["a", "b"]`, or nullopt if the text is not a JSON array of strings.
std::optional<std::vector<std::string>> parse_exec_form(std::string_view text) {
  if (!text.starts_with('[')) return std::nullopt;
  try {
    const json::Value value = json::parse(text);
    std::vector<std::string> out;
    for (const json::Value& item : value.as_array()) {
      if (!item.is_string()) return std::nullopt;
      out.emplace_back(item.get_string());
    }
    return out;
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return std::nullopt;
  }
}

/// Words separated by blanks; quotes and backslashes as a Dockerfile reads them.
std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> out;
  std::optional<std::string> word;
  char quote_char = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote_char != 0) {
      if (c == quote_char) quote_char = 0;
      else if (c == '\\' && quote_char == '"' && i + 1 < text.size()) *word += text[++i];
      else *word += c;
    } else if (c == ' ' || c == '\t') {
      if (word) out.push_back(std::move(*word));
      word.reset();
    } else {
      if (!word) word.emplace();
      if (c == '"' || c == '\'') quote_char = c;
      else if (c == '\\' && i + 1 < text.size()) *word += text[++i];
      else *word += c;
    }
  }
  if (quote_char != 0)
    invalid(fmt::format("unexpected end of statement while looking for matching {}",
                        quote_char == '"' ? "double-quote" : "single-quote"));
  if (word) out.push_back(std::move(*word));
  return out;
}

/// "key=value …", or the older "key value".
std::vector<std::pair<std::string, std::string>> parse_pairs(const std::string& command, std::string_view text) {
  const auto first = text.substr(0, text.find_first_of(" \t"));
  if (first.find('=') == std::string_view::npos) {
    const auto blank = text.find_first_of(" \t");
    if (blank == std::string_view::npos) invalid(fmt::format("{} must have two arguments", command));
    return {{std::string(first), std::string(trim(text.substr(blank)))}};
  }
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& word : split_words(text)) {
    const auto equals = word.find('=');
    if (equals == std::string::npos)
      invalid(fmt::format("Syntax error - can't find = in {}. Must be of the form: name=value", quote(word)));
    if (equals == 0) invalid(fmt::format("{} names can not be blank", command));
    out.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return out;
}

std::vector<std::string> command_line(std::string_view text) {
  if (auto words = parse_exec_form(text)) return *words;
  return {"/bin/sh", "-c", std::string(text)};
}

void set_environment(ContainerConfig& config, const std::string& name, const std::string& value) {
  if (!config.Env) config.Env.emplace();
  for (std::string& entry : *config.Env)
    if (entry.starts_with(name + "=")) {
      entry = name + "=" + value;
      return;
    }
  config.Env->push_back(name + "=" + value);
}

void expose(ContainerConfig& config, std::string_view text) {
  if (!config.ExposedPorts) config.ExposedPorts.emplace();
  for (const std::string& word : split_words(text)) {
    const auto [port, protocol_text] = split_once(word, '/');
    const std::string protocol = protocol_text.empty() ? "tcp" : to_lower(protocol_text);
    if (protocol != "tcp" && protocol != "udp" && protocol != "sctp")
      invalid(fmt::format("invalid proto: {}", protocol));
    const auto [low_text, high_text] = split_once(port, '-');
    const auto low = parse_int(low_text);
    const auto high = high_text.empty() ? low : parse_int(high_text);
    if (!low || !high || *low < 1 || *high > 65535 || *low > *high)
      invalid(fmt::format("invalid containerPort: {}", port));
    for (auto p = *low; p <= *high; ++p) (*config.ExposedPorts)[fmt::format("{}/{}", p, protocol)] = {};
  }
}

std::int64_t parse_interval(const std::string& flag, const std::string& text) {
  static const std::map<std::string, double, std::less<>> kUnits = {
      {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  const auto digits = text.find_first_not_of("0123456789.");
  const auto unit = digits == std::string::npos || digits == 0 ? kUnits.end() : kUnits.find(text.substr(digits));
  if (unit == kUnits.end()) invalid(fmt::format("--{}: invalid duration {}", flag, quote(text)));
  return static_cast<std::int64_t>(std::strtod(text.c_str(), nullptr) * unit->second);
}

void health_check(ContainerConfig& config, std::string_view text) {
  model::HealthConfig health;
  text = trim(text);
  while (text.starts_with("--")) {
    const auto end = text.find_first_of(" \t");
    const auto [flag, value] = split_once(text.substr(2, end == std::string_view::npos ? end : end - 2), '=');
    const std::string name(flag), given(value);
    if (name == "interval") health.Interval.emplace(parse_interval(name, given));
    else if (name == "timeout") health.Timeout.emplace(parse_interval(name, given));
    else if (name == "start-period") health.StartPeriod.emplace(parse_interval(name, given));
    else if (name == "start-interval") health.StartInterval.emplace(parse_interval(name, given));
    else if (name == "retries") health.Retries.emplace(parse_int(given).value_or(0));
    else invalid(fmt::format("unknown flag: {}", name));
    text = end == std::string_view::npos ? std::string_view() : trim(text.substr(end));
  }
  const auto blank = text.find_first_of(" \t");
  const std::string kind = to_upper(text.substr(0, blank));
  if (kind == "NONE") {
    health.Test = std::vector<std::string>{"NONE"};
  } else if (kind == "CMD" && blank != std::string_view::npos) {
    const std::string_view rest = trim(text.substr(blank));
    std::vector<std::string> test;
    if (auto words = parse_exec_form(rest)) {
      test = {"CMD"};
      test.insert(test.end(), words->begin(), words->end());
    } else {
      test = {"CMD-SHELL", std::string(rest)};
    }
    health.Test = std::move(test);
  } else {
    invalid(fmt::format("Unknown type {} in HEALTHCHECK (try CMD)", quote(kind)));
  }
  config.Healthcheck = std::move(health);
}

void add_volumes(ContainerConfig& config, std::string_view text) {
  if (!config.Volumes) config.Volumes.emplace();
  for (const std::string& volume : parse_exec_form(text).value_or(split_words(text))) {
    if (trim(volume).empty()) invalid("VOLUME specified can not be an empty string");
    (*config.Volumes)[volume] = {};
  }
}

void change_directory(ContainerConfig& config, const std::string& path) {
  if (path.starts_with('/')) config.WorkingDir = path;
  else config.WorkingDir = (config.WorkingDir.empty() ? std::string("/") : config.WorkingDir + "/") + path;
  std::string lexical = std::filesystem::path(config.WorkingDir).lexically_normal().string();
  if (lexical.size() > 1 && lexical.ends_with('/')) lexical.pop_back();
  config.WorkingDir = lexical;
}

using Handler = std::function<void(ContainerConfig&, std::string_view)>;

const std::map<std::string, Handler>& handlers() {
  static const std::map<std::string, Handler> all = {
      {"cmd", [](ContainerConfig& c, std::string_view t) { c.Cmd = command_line(t); }},
      {"entrypoint",
       [](ContainerConfig& c, std::string_view t) {
         c.Entrypoint = command_line(t);
         c.Cmd.reset();
       }},
      {"env",
       [](ContainerConfig& c, std::string_view t) {
         for (const auto& [name, value] : parse_pairs("ENV", t)) set_environment(c, name, value);
       }},
      {"expose", &expose},
      {"healthcheck", &health_check},
      {"label",
       [](ContainerConfig& c, std::string_view t) {
         if (!c.Labels) c.Labels.emplace();
         for (auto& [name, value] : parse_pairs("LABEL", t)) (*c.Labels)[name] = value;
       }},
      {"onbuild",
       [](ContainerConfig& c, std::string_view t) {
         if (!c.OnBuild) c.OnBuild.emplace();
         c.OnBuild->emplace_back(t);
       }},
      {"stopsignal", [](ContainerConfig& c, std::string_view t) { c.StopSignal = std::string(t); }},
      {"user", [](ContainerConfig& c, std::string_view t) { c.User = t; }},
      {"volume", &add_volumes},
      {"workdir", [](ContainerConfig& c, std::string_view t) { change_directory(c, std::string(t)); }},
  };
  return all;
}

}  // namespace

void apply_changes(ContainerConfig& config, const std::vector<std::string>& changes) {
  for (const std::string& change : changes) {
    for (const std::string& line : split(change, '\n')) {
      const std::string_view text = trim(line);
      if (text.empty() || text.starts_with('#')) continue;
      const auto blank = text.find_first_of(" \t");
      const std::string command = to_lower(text.substr(0, blank));
      const auto handler = handlers().find(command);
      if (handler == handlers().end()) invalid(fmt::format("{} is not a valid change command", command));
      const std::string_view rest = blank == std::string_view::npos ? std::string_view() : trim(text.substr(blank));
      if (rest.empty()) invalid(fmt::format("{} requires at least one argument", to_upper(command)));
      handler->second(config, rest);
    }
  }
}

}  // namespace gantry::image
