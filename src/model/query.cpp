#include "model/query.hpp"

#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::model {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decode_or_throw(std::string_view text) {
  if (auto decoded = percent_decode(text, true)) return std::move(*decoded);
  const std::size_t at = text.find('%');
  throw Error(Errc::invalid_argument, "invalid URL escape " + quote(text.substr(at, 3)));
}

[[noreturn]] void invalid_filter() { throw Error(Errc::invalid_argument, "invalid filter"); }

void add_filter_values(Filters& out, const std::string& key, const json::Value& values) {
  if (const auto* object = values.if_object()) {
    for (const auto& member : *object) {
      if (!member.value().is_bool()) invalid_filter();
      out.add(key, std::string(member.key()));
    }
  } else if (const auto* array = values.if_array()) {
    for (const auto& item : *array) {
      if (!item.is_string()) invalid_filter();
      out.add(key, std::string(item.get_string()));
    }
  } else {
    invalid_filter();
  }
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      out += ' ';
    } else if (text[i] != '%') {
      out += text[i];
    } else {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return out;
}

Query Query::parse(std::string_view raw) {
  Query out;
  while (!raw.empty()) {
    const std::size_t end = raw.find('&');
    const std::string_view item = raw.substr(0, end);
    raw = end == std::string_view::npos ? std::string_view{} : raw.substr(end + 1);
    if (item.empty()) continue;
    if (item.find(';') != std::string_view::npos)
      throw Error(Errc::invalid_argument, "invalid semicolon separator in query");
    const auto [name, value] = split_once(item, '=');
    std::string decoded_name = decode_or_throw(name);
    out.items_.emplace_back(std::move(decoded_name), decode_or_throw(value));
  }
  return out;
}

const std::string* Query::find(std::string_view name) const {
  for (const auto& [key, value] : items_)
    if (key == name) return &value;
  return nullptr;
}

std::string Query::get(std::string_view name, std::string_view fallback) const {
  const std::string* value = find(name);
  return value != nullptr ? *value : std::string(fallback);
}

std::vector<std::string> Query::all(std::string_view name) const {
  std::vector<std::string> out;
  for (const auto& [key, value] : items_)
    if (key == name) out.push_back(value);
  return out;
}

bool Query::flag(std::string_view name, bool absent) const {
  const std::string* value = find(name);
  return value != nullptr ? parse_query_bool(*value) : absent;
}

std::optional<std::int64_t> Query::integer(std::string_view name) const {
  const std::string* value = find(name);
  if (value == nullptr || value->empty()) return std::nullopt;
  if (const auto number = parse_int(*value)) return number;
  throw Error(Errc::invalid_argument, "strconv.Atoi: parsing " + quote(*value) + ": invalid syntax");
}

Filters Query::filters(std::string_view name) const {
  const std::string* text = find(name);
  Filters out;
  if (text == nullptr || text->empty()) return out;
  json::Value value;
  try {
    value = json::parse(*text);
  } catch (const Error&) {
    invalid_filter();
  }
  if (value.is_null()) return out;
  const auto* object = value.if_object();
  if (object == nullptr) invalid_filter();
  for (const auto& member : *object) add_filter_values(out, std::string(member.key()), member.value());
  return out;
}

}  // namespace gantry::model
