#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/text.hpp"
#include "config/load.hpp"
#include "config/options.hpp"

namespace gantry::config {
namespace {

namespace json = boost::json;

json::value to_json(const TextMap& map) {
  json::object object;
  for (const auto& [key, value] : map) object[key] = value;
  return object;
}
json::value to_json(const std::vector<std::string>& list) {
  json::array array;
  for (const std::string& item : list) array.emplace_back(item);
  return array;
}
json::value to_json(const Runtime& runtime) {
  json::object object;
  if (!runtime.path.empty()) object["path"] = runtime.path;
  if (!runtime.args.empty()) object["runtimeArgs"] = to_json(runtime.args);
  if (!runtime.type.empty()) object["runtimeType"] = runtime.type;
  return object;
}
json::value to_json(const Ulimit& limit) {
  return json::object{{"Name", limit.name}, {"Soft", limit.soft}, {"Hard", limit.hard}};
}
json::value to_json(const BuilderConfig& builder) {
  return json::object{{"gc", json::object{{"enabled", builder.gc_enabled},
                                          {"defaultReservedSpace", builder.gc_reserved_bytes},
                                          {"defaultMaxUsedSpace", builder.gc_max_used_bytes},
                                          {"defaultMinFreeSpace", builder.gc_min_free_bytes}}},
                      {"entitlements", json::object{{"network-host", builder.allow_network_host},
                                                    {"security-insecure", builder.allow_security_insecure},
                                                    {"device", builder.allow_device}}},
                      {"history", json::object{{"maxEntries", builder.history_entries}}},
                      {"idle", builder.idle_seconds},
                      {"memory", builder.memory_bytes}};
}

struct ToJson {
  const Config& config;

  json::value operator()(Unused) const { return nullptr; }
  json::value operator()(bool Config::* m) const { return config.*m; }
  json::value operator()(std::optional<bool> Config::* m) const {
    const std::optional<bool>& value = config.*m;
    return value.has_value() ? json::value(*value) : json::value(nullptr);
  }
  json::value operator()(std::int64_t Config::* m) const { return config.*m; }
  json::value operator()(std::string Config::* m) const { return json::value(config.*m); }
  json::value operator()(std::vector<std::string> Config::* m) const { return to_json(config.*m); }
  json::value operator()(TextMap Config::* m) const { return to_json(config.*m); }
  json::value operator()(std::vector<AddressPool> Config::* m) const {
    json::array array;
    for (const AddressPool& pool : config.*m) array.push_back(json::object{{"base", pool.base}, {"size", pool.size}});
    return array;
  }
  json::value operator()(BuilderConfig Config::* m) const { return to_json(config.*m); }
  template <class T>
  json::value operator()(std::map<std::string, T> Config::* m) const {
    json::object object;
    for (const auto& [key, value] : config.*m) {
      if constexpr (std::is_same_v<T, bool>) object[key] = value;
      else object[key] = to_json(value);
    }
    return object;
  }
};

std::string_view type_name(const Option& option) {
  struct Name {
    std::string_view operator()(Unused) const { return "any"; }
    std::string_view operator()(bool Config::*) const { return "true or false"; }
    std::string_view operator()(std::optional<bool> Config::*) const { return "true or false"; }
    std::string_view operator()(std::int64_t Config::*) const { return "number"; }
    std::string_view operator()(std::string Config::*) const { return "string"; }
    std::string_view operator()(std::vector<std::string> Config::*) const { return "list"; }
    std::string_view operator()(std::vector<AddressPool> Config::*) const { return "list of objects"; }
    std::string_view operator()(BuilderConfig Config::*) const { return "object"; }
    std::string_view operator()(TextMap Config::*) const { return "object"; }
    std::string_view operator()(std::map<std::string, bool> Config::*) const { return "object"; }
    std::string_view operator()(std::map<std::string, TextMap> Config::*) const { return "object"; }
    std::string_view operator()(std::map<std::string, Ulimit> Config::*) const { return "object"; }
    std::string_view operator()(std::map<std::string, Runtime> Config::*) const { return "object"; }
  };
  return option.unit == Unit::bytes ? "size" : std::visit(Name{}, option.member);
}

std::string_view origin_name(Origin origin) {
  switch (origin) {
    case Origin::standard: return "default";
    case Origin::file: return "file";
    case Origin::flag: return "flag";
  }
  return "";
}

}  // namespace

std::string render_value(const Config& config, const Option& option) {
  return json::serialize(std::visit(ToJson{config}, option.member));
}

void copy_value(const Config& from, Config& to, const Option& option) {
  std::visit(
      [&](auto member) {
        if constexpr (!std::is_same_v<decltype(member), Unused>) to.*member = from.*member;
      },
      option.member);
}

bool same_value(const Config& a, const Config& b, const Option& option) {
  return std::visit(
      [&](auto member) {
        if constexpr (std::is_same_v<decltype(member), Unused>) return true;
        else return a.*member == b.*member;
      },
      option.member);
}

std::string render_problem(const Problem& problem) {
  std::string text;
  if (!problem.file.empty()) text += problem.file + (problem.line > 0 ? ":" + std::to_string(problem.line) : "") + ": ";
  if (!problem.key.empty()) text += problem.key + ": ";
  text += problem.message;
  if (!problem.allowed.empty()) text += "; allowed: " + problem.allowed;
  if (!problem.suggestion.empty()) text += "; did you mean " + quote(problem.suggestion) + "?";
  return text;
}

ValidateReport validate(const ParsedCommandLine& command_line, const HostFacts& host) {
  LoadResult loaded = load(command_line, host);
  ValidateReport report;
  for (const Problem& problem : loaded.problems) report.text += render_problem(problem) + "\n";
  if (loaded.problems.empty()) {
    for (const std::string& note : loaded.notes) report.text += "note: " + note + "\n";
    report.text += "configuration OK\n";
    return report;
  }
  auto count = loaded.problems.size();
  report.text += std::to_string(count) + (count == 1 ? " problem\n" : " problems\n");
  report.exit_code = 1;
  return report;
}

std::string render_config(const LoadResult& loaded) {
  std::string text;
  for (const Option& option : options()) {
    if (std::holds_alternative<Unused>(option.member)) continue;
    auto origin = loaded.origins.find(std::string(option.key));
    text += fmt::format("{:<28} {:<8} {}\n", option.key,
                        origin_name(origin == loaded.origins.end() ? Origin::standard : origin->second),
                        render_value(loaded.config, option));
  }
  return text;
}

std::string render_options_page() {
  const Config standard;
  std::string page =
      "# Settings\n\n"
      "Generated from the table in `src/config/options.cpp`; a test keeps the two equal. Each setting is a key of\n"
      "`daemon.json` (`/etc/gantry/daemon.json`, or `--config-file`) and a flag of `gantryd`. *Live* settings change "
      "on\n"
      "SIGHUP. `gantryd --validate` checks a file and lists everything that is wrong with it.\n\n"
      "Unless `log-opts` says otherwise, the log of a container is rotated at " +
      std::string(kDefaultLogMaxSize) + " and " + std::string(kDefaultLogMaxFile) +
      " files are kept.\n\n"
      "| key | flag | type | default | live | what it does |\n|---|---|---|---|---|---|\n";
  for (const Option& option : options()) {
    std::string flag = option.flag.empty() ? "" : "`--" + std::string(option.flag) + "`";
    if (option.letter != 0) flag += std::string(" `-") + option.letter + "`";
    std::string value = std::holds_alternative<Unused>(option.member) ? "" : "`" + render_value(standard, option) + "`";
    if (option.key == "builder") value = "";
    std::string help(option.help);
    if (!option.no_effect.empty()) help += " (**no effect**: " + std::string(option.no_effect) + ")";
    page += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", option.key, flag, type_name(option), value,
                        option.reload == Reload::live ? "yes" : "", help);
  }
  page += "\nFlags only: `--config-file`, `--validate`, `--version` (`-v`), `--help` (`-h`).\n";
  return page;
}

}  // namespace gantry::config
