#include "config/value.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/text.hpp"

namespace gantry::config {
namespace {

namespace json = boost::json;
using Mistakes = std::vector<Mistake>;

Mistake wrong_kind(std::string path, const json::value& value, std::string wanted) {
  return {std::move(path), {"must be " + wanted + ", not " + kind_name(value), std::move(wanted), ""}};
}

Mistake unknown_field(std::string path, std::string_view field, const std::vector<std::string>& known) {
  return {std::move(path), {"unknown key", join(known, ", "), closest_word(field, known).value_or("")}};
}

std::optional<bool> parse_bool(std::string_view text) {
  // Source: Go's strconv.ParseBool, which dockerd's flags use.
  for (std::string_view yes : {"1", "t", "T", "true", "TRUE", "True"})
    if (text == yes) return true;
  for (std::string_view no : {"0", "f", "F", "false", "FALSE", "False"})
    if (text == no) return false;
  return std::nullopt;
}

// --- from JSON: each reader appends to `bad` and returns a value that counts only if it appended nothing ---

bool read_bool(const json::value& value, const std::string& path, Mistakes& bad) {
  if (value.is_bool()) return value.get_bool();
  bad.push_back(wrong_kind(path, value, "true or false"));
  return false;
}

std::string read_text(const json::value& value, const std::string& path, Mistakes& bad) {
  if (value.is_string()) return std::string(value.get_string());
  bad.push_back(wrong_kind(path, value, "a string"));
  return {};
}

std::int64_t read_int(const json::value& value, const std::string& path, Mistakes& bad) {
  if (value.is_int64()) return value.get_int64();
  bad.push_back(wrong_kind(path, value, "a whole number"));
  return 0;
}

std::int64_t read_bytes(const json::value& value, const std::string& path, Mistakes& bad) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_string()) {
    std::string_view text = value.get_string();
    if (auto bytes = parse_size(text)) return *bytes;
    bad.push_back({path, {"invalid size: " + quote(text), "a size such as 64M", ""}});
    return 0;
  }
  bad.push_back(wrong_kind(path, value, "a size such as \"64M\""));
  return 0;
}

std::vector<std::string> read_list(const json::value& value, const std::string& path, Mistakes& bad) {
  std::vector<std::string> list;
  if (!value.is_array()) {
    bad.push_back(wrong_kind(path, value, "a list of strings"));
    return list;
  }
  for (const json::value& item : value.get_array())
    list.push_back(read_text(item, path + "[" + std::to_string(list.size()) + "]", bad));
  return list;
}

template <class T, class Reader>
std::map<std::string, T> read_map(const json::value& value, const std::string& path, Mistakes& bad,
                                  std::string_view wanted, Reader reader) {
  std::map<std::string, T> map;
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, std::string(wanted)));
    return map;
  }
  for (const auto& member : value.get_object()) {
    std::string key(member.key());
    map.emplace(key, reader(member.value(), fmt::format("{}.{}", path, key), bad));
  }
  return map;
}

TextMap read_text_map(const json::value& value, const std::string& path, Mistakes& bad) {
  return read_map<std::string>(value, path, bad, "an object of strings", read_text);
}

AddressPool read_pool(const json::value& value, const std::string& path, Mistakes& bad) {
  AddressPool pool;
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, R"(an object like {"base": "10.200.0.0/16", "size": 24})"));
    return pool;
  }
  for (const auto& member : value.get_object()) {
    std::string at = path + "." + std::string(member.key());
    std::string field = to_lower(member.key());
    if (field == "base") pool.base = read_text(member.value(), at, bad);
    else if (field == "size") pool.size = static_cast<int>(read_int(member.value(), at, bad));
    else bad.push_back(unknown_field(at, member.key(), {"base", "size"}));
  }
  return pool;
}

Ulimit read_ulimit(const json::value& value, const std::string& path, Mistakes& bad) {
  Ulimit limit;
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, R"(an object like {"Name": "nofile", "Soft": 1024, "Hard": 2048})"));
    return limit;
  }
  for (const auto& member : value.get_object()) {
    std::string at = path + "." + std::string(member.key());
    std::string field = to_lower(member.key());
    if (field == "name") limit.name = read_text(member.value(), at, bad);
    else if (field == "soft") limit.soft = read_int(member.value(), at, bad);
    else if (field == "hard") limit.hard = read_int(member.value(), at, bad);
    else bad.push_back(unknown_field(at, member.key(), {"Name", "Soft", "Hard"}));
  }
  if (limit.name.empty()) limit.name = path.substr(path.rfind('.') + 1);
  return limit;
}

Runtime read_runtime(const json::value& value, const std::string& path, Mistakes& bad) {
  Runtime runtime;
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, R"(an object like {"path": "/usr/bin/crun"})"));
    return runtime;
  }
  for (const auto& member : value.get_object()) {
    std::string at = path + "." + std::string(member.key());
    std::string_view field = member.key();
    if (field == "path") runtime.path = read_text(member.value(), at, bad);
    else if (field == "runtimeArgs") runtime.args = read_list(member.value(), at, bad);
    else if (field == "runtimeType") runtime.type = read_text(member.value(), at, bad);
    else if (field != "options")
      bad.push_back(unknown_field(at, field, {"path", "runtimeArgs", "runtimeType", "options"}));
  }
  return runtime;
}

void read_builder_gc(const json::value& value, const std::string& path, Mistakes& bad, BuilderConfig& builder) {
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, "an object"));
    return;
  }
  for (const auto& member : value.get_object()) {
    std::string at = path + "." + std::string(member.key());
    std::string field = to_lower(member.key());
    if (field == "enabled") builder.gc_enabled = read_bool(member.value(), at, bad);
    else if (field == "defaultkeepstorage" || field == "defaultreservedspace")
      builder.gc_reserved_bytes = read_bytes(member.value(), at, bad);
    else if (field == "defaultmaxusedspace") builder.gc_max_used_bytes = read_bytes(member.value(), at, bad);
    else if (field == "defaultminfreespace") builder.gc_min_free_bytes = read_bytes(member.value(), at, bad);
    else if (field != "policy")
      bad.push_back(unknown_field(at, member.key(),
                                  {"enabled", "policy", "defaultKeepStorage", "defaultReservedSpace",
                                   "defaultMaxUsedSpace", "defaultMinFreeSpace"}));
  }
}

void read_builder_entitlements(const json::value& value, const std::string& path, Mistakes& bad,
                               BuilderConfig& builder) {
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, "an object"));
    return;
  }
  for (const auto& member : value.get_object()) {
    std::string at = path + "." + std::string(member.key());
    std::string field = to_lower(member.key());
    if (field == "network-host") builder.allow_network_host = read_bool(member.value(), at, bad);
    else if (field == "security-insecure") builder.allow_security_insecure = read_bool(member.value(), at, bad);
    else if (field == "device") builder.allow_device = read_bool(member.value(), at, bad);
    else bad.push_back(unknown_field(at, member.key(), {"network-host", "security-insecure", "device"}));
  }
}

BuilderConfig read_builder(const json::value& value, const std::string& path, Mistakes& bad) {
  BuilderConfig builder;
  if (!value.is_object()) {
    bad.push_back(wrong_kind(path, value, "an object"));
    return builder;
  }
  for (const auto& member : value.get_object()) {
    std::string at = path + "." + std::string(member.key());
    std::string field = to_lower(member.key());
    if (field == "gc") read_builder_gc(member.value(), at, bad, builder);
    else if (field == "entitlements") read_builder_entitlements(member.value(), at, bad, builder);
    else if (field == "idle") builder.idle_seconds = read_int(member.value(), at, bad);
    else if (field == "memory") builder.memory_bytes = read_bytes(member.value(), at, bad);
    else if (field != "history")
      bad.push_back(unknown_field(at, member.key(), {"gc", "entitlements", "history", "idle", "memory"}));
    else if (const json::object* history = member.value().if_object()) {
      if (const json::value* entries = history->if_contains("maxEntries"))
        builder.history_entries = read_int(*entries, at + ".maxEntries", bad);
    } else {
      bad.push_back(wrong_kind(at, member.value(), "an object"));
    }
  }
  return builder;
}

void check_unused(Unused type, const json::value& value, Mistakes& bad) {
  switch (type) {
    case Unused::boolean: read_bool(value, "", bad); return;
    case Unused::integer: read_int(value, "", bad); return;
    case Unused::text: read_text(value, "", bad); return;
    case Unused::list: read_list(value, "", bad); return;
    case Unused::object:
      if (!value.is_object()) bad.push_back(wrong_kind("", value, "an object"));
      return;
  }
}

/// Reads a JSON value for whichever member a row has.
struct JsonReader {
  const Option& option;
  const json::value& value;
  Config& config;
  Mistakes bad;

  template <class T>
  void set(T Config::* member, T read) {
    if (bad.empty()) config.*member = std::move(read);
  }
  void operator()(Unused type) { check_unused(type, value, bad); }
  void operator()(bool Config::* m) { set(m, read_bool(value, "", bad)); }
  void operator()(std::optional<bool> Config::* m) { set(m, std::optional<bool>(read_bool(value, "", bad))); }
  void operator()(std::int64_t Config::* m) {
    set(m, option.unit == Unit::bytes ? read_bytes(value, "", bad) : read_int(value, "", bad));
  }
  void operator()(std::string Config::* m) { set(m, read_text(value, "", bad)); }
  void operator()(std::vector<std::string> Config::* m) {
    if (value.is_string() && !option.old_key.empty()) set(m, std::vector<std::string>{read_text(value, "", bad)});
    else set(m, read_list(value, "", bad));
  }
  void operator()(TextMap Config::* m) { set(m, read_text_map(value, "", bad)); }
  void operator()(std::map<std::string, bool> Config::* m) {
    set(m, read_map<bool>(value, "", bad, "an object of true and false", read_bool));
  }
  void operator()(std::map<std::string, TextMap> Config::* m) {
    set(m, read_map<TextMap>(value, "", bad, "an object of objects of strings", read_text_map));
  }
  void operator()(std::vector<AddressPool> Config::* m) {
    std::vector<AddressPool> pools;
    if (!value.is_array()) {
      bad.push_back(wrong_kind("", value, R"(a list like [{"base": "10.200.0.0/16", "size": 24}])"));
      return;
    }
    for (const json::value& item : value.get_array())
      pools.push_back(read_pool(item, "[" + std::to_string(pools.size()) + "]", bad));
    set(m, std::move(pools));
  }
  void operator()(std::map<std::string, Ulimit> Config::* m) {
    set(m, read_map<Ulimit>(value, "", bad, "an object of limits", read_ulimit));
  }
  void operator()(std::map<std::string, Runtime> Config::* m) {
    set(m, read_map<Runtime>(value, "", bad, "an object of runtimes", read_runtime));
  }
  void operator()(BuilderConfig Config::* m) { set(m, read_builder(value, "", bad)); }
};

// --- from flags ---

Mistake bad_flag(std::string_view value, std::string allowed) {
  return {"", {"invalid argument " + quote(value), std::move(allowed), ""}};
}

/// "base=10.200.0.0/16,size=24"
std::optional<AddressPool> parse_pool(std::string_view text) {
  AddressPool pool;
  for (const std::string& field : split(text, ',')) {
    auto [key, value] = split_once(field, '=');
    if (key == "base") pool.base = value;
    else if (auto size = parse_int(value); key == "size" && size) pool.size = static_cast<int>(*size);
    else return std::nullopt;
  }
  return pool;
}

/// "nofile=1024:2048"; one number stands for both.
std::optional<Ulimit> parse_ulimit(std::string_view text) {
  auto [name, limits] = split_once(text, '=');
  auto [soft_text, hard_text] = split_once(limits, ':');
  auto soft = parse_int(soft_text);
  auto hard = limits.find(':') == std::string_view::npos ? soft : parse_int(hard_text);
  if (name.empty() || !soft || !hard) return std::nullopt;
  return Ulimit{std::string(name), *soft, *hard};
}

struct FlagReader {
  const Option& option;
  const std::vector<std::string>& values;
  Config& config;
  Mistakes bad;

  const std::string& last() const { return values.back(); }

  void operator()(Unused) {}
  void operator()(bool Config::* m) {
    if (auto value = parse_bool(last())) config.*m = *value;
    else bad.push_back(bad_flag(last(), "true or false"));
  }
  void operator()(std::optional<bool> Config::* m) {
    if (auto value = parse_bool(last())) config.*m = value;
    else bad.push_back(bad_flag(last(), "true or false"));
  }
  void operator()(std::int64_t Config::* m) {
    auto value = option.unit == Unit::bytes ? parse_size(last()) : parse_int(last());
    if (value) config.*m = *value;
    else bad.push_back(bad_flag(last(), option.unit == Unit::bytes ? "a size such as 64M" : "a whole number"));
  }
  void operator()(std::string Config::* m) { config.*m = last(); }
  void operator()(std::vector<std::string> Config::* m) { config.*m = values; }
  void operator()(TextMap Config::* m) {
    for (const std::string& pair : values) {
      auto [key, value] = split_once(pair, '=');
      if (pair.find('=') == std::string::npos) bad.push_back(bad_flag(pair, "key=value"));
      else (config.*m)[std::string(key)] = value;
    }
  }
  void operator()(std::map<std::string, bool> Config::* m) {
    for (const std::string& pair : values) {
      auto [key, text] = split_once(pair, '=');
      auto value = pair.find('=') == std::string::npos ? true : parse_bool(text);
      if (value) (config.*m)[std::string(key)] = *value;
      else bad.push_back(bad_flag(pair, "name=true or name=false"));
    }
  }
  void operator()(std::map<std::string, TextMap> Config::* m) {
    for (const std::string& triple : values) {
      auto [driver, pair] = split_once(triple, '=');
      auto [key, value] = split_once(pair, '=');
      if (driver.empty() || key.empty() || pair.find('=') == std::string_view::npos)
        bad.push_back(bad_flag(triple, "driver=key=value"));
      else (config.*m)[std::string(driver)][std::string(key)] = value;
    }
  }
  void operator()(std::vector<AddressPool> Config::* m) {
    for (const std::string& text : values) {
      if (auto pool = parse_pool(text)) (config.*m).push_back(*pool);
      else bad.push_back(bad_flag(text, "base=CIDR,size=N"));
    }
  }
  void operator()(std::map<std::string, Ulimit> Config::* m) {
    for (const std::string& text : values) {
      if (auto limit = parse_ulimit(text)) (config.*m)[limit->name] = *limit;
      else bad.push_back(bad_flag(text, "type=soft:hard"));
    }
  }
  void operator()(std::map<std::string, Runtime> Config::* m) {
    for (const std::string& pair : values) {
      auto [name, path] = split_once(pair, '=');
      if (name.empty() || path.empty()) bad.push_back(bad_flag(pair, "name=path"));
      else if (path.front() == '/') (config.*m)[std::string(name)] = Runtime{std::string(path), {}, ""};
      else (config.*m)[std::string(name)] = Runtime{"", {}, std::string(path)};
    }
  }
  void operator()(BuilderConfig Config::*) {}
};

}  // namespace

std::vector<Mistake> read_json(const Option& option, const json::value& value, Config& config) {
  JsonReader reader{option, value, config, {}};
  std::visit(reader, option.member);
  return std::move(reader.bad);
}

std::vector<Mistake> read_flag(const Option& option, const std::vector<std::string>& values, Config& config) {
  if (values.empty()) return {};
  FlagReader reader{option, values, config, {}};
  std::visit(reader, option.member);
  return std::move(reader.bad);
}

std::string render_as_go(const json::value& value) {
  std::string text;
  switch (value.kind()) {
    case json::kind::string: return std::string(value.get_string());
    case json::kind::null: return "<nil>";
    case json::kind::array:
      for (const json::value& item : value.get_array()) text += (text.empty() ? "" : " ") + render_as_go(item);
      return "[" + text + "]";
    case json::kind::object: {
      std::map<std::string, std::string> sorted;
      for (const auto& member : value.get_object()) sorted[member.key()] = render_as_go(member.value());
      for (const auto& [key, rendered] : sorted) text += fmt::format("{}{}:{}", text.empty() ? "" : " ", key, rendered);
      return "map[" + text + "]";
    }
    default: return json::serialize(value);
  }
}

std::string kind_name(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null: return "null";
    case json::kind::bool_: return value.get_bool() ? "true" : "false";
    case json::kind::int64: return "the number " + std::to_string(value.get_int64());
    case json::kind::uint64:
    case json::kind::double_: return "the number " + json::serialize(value);
    case json::kind::string: return "the string " + quote(std::string_view(value.get_string()).substr(0, 40));
    case json::kind::array: return "a list";
    case json::kind::object: return "an object";
  }
  return "something else";
}

}  // namespace gantry::config
