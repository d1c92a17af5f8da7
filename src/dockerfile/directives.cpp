#include "dockerfile/directives.hpp"

#include <algorithm>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "base/text.hpp"
#include "dockerfile/utf8.hpp"
#include "json/json.hpp"

namespace gantry::dockerfile {
namespace {

/// The end of the part of a file where directives can be, for look-ups that must not read megabytes.
constexpr std::size_t kMaxJsonFile = 64 * 1024;

bool is_ascii_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

/// `key = value` with blanks around the parts; an empty key if it is none.
std::pair<std::string_view, std::string_view> split_assignment(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size() && is_ascii_alnum(text[end])) ++end;
  const std::string_view key = text.substr(0, end);
  if (key.empty() || is_digit(static_cast<unsigned char>(key.front()))) return {};
  std::string_view rest = trim(text.substr(end));
  if (!rest.starts_with('=')) return {};
  rest = trim(rest.substr(1));
  if (rest.empty()) return {};
  return {key, rest};
}

bool is_known(std::string_view name) { return name == "syntax" || name == "escape" || name == "check"; }

std::vector<Directive> read_all(std::string_view text, std::string_view comment, int line) {
  DirectiveReader reader(comment);
  while (!text.empty() && !reader.done()) {
    const auto [first, rest] = split_once(text, '\n');
    text = rest;
    std::string_view content = first;
    if (content.ends_with('\r')) content.remove_suffix(1);
    try {
      reader.read(content, ++line);
    } catch (const SourceError&) {
      break;  // the file will be refused for it; what came before it counts
    }
  }
  return reader.take();
}

std::optional<Directive> named(std::vector<Directive> directives, std::string_view name) {
  const auto at =
      std::find_if(directives.begin(), directives.end(), [&](const Directive& d) { return d.name == name; });
  if (at == directives.end()) return std::nullopt;
  return std::move(*at);
}

/// Without a byte order mark and a first line `#!…`; tells how many lines that was.
std::pair<std::string_view, int> body_of(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!text.starts_with("#!")) return {text, 0};
  return {split_once(text, '\n').second, 1};
}

}  // namespace

bool DirectiveReader::read(std::string_view line, int number) {
  if (done_) return false;
  done_ = true;  // unless this line is one, too
  if (!line.starts_with(comment_)) return false;
  line = trim_left_space(line.substr(comment_.size()));
  const auto [key, value] = split_assignment(line);
  const std::string name = to_lower(key);
  if (!is_known(name)) return false;
  if (std::any_of(found_.begin(), found_.end(), [&](const Directive& d) { return d.name == name; }))
    throw SourceError("only one " + name + " parser directive can be used", {number, number});
  if (name == "escape") {
    if (value != "`" && value != "\\")
      throw SourceError("invalid escape token '" + std::string(value) + "' does not match ` or \\", {number, number});
    escape_ = value.front();
  }
  found_.push_back({name, std::string(value), {number, number}});
  done_ = false;
  return true;
}

std::optional<Directive> find_directive(std::string_view text, std::string_view name) {
  const auto [body, line] = body_of(text);
  return named(read_all(body, "#", line), name);
}

std::optional<Directive> detect_syntax(std::string_view text) {
  const auto [body, line] = body_of(text);
  if (auto directive = named(read_all(body, "#", line), "syntax")) return directive;
  if (auto directive = named(read_all(body, "//", line), "syntax")) return directive;
  if (!trim(body.substr(0, kMaxJsonFile)).starts_with('{') || body.size() > kMaxJsonFile) return std::nullopt;
  try {
    const json::Value value = json::parse(body);
    const json::Value* syntax = value.is_object() ? value.get_object().if_contains("syntax") : nullptr;
    if (syntax == nullptr || !syntax->is_string()) return std::nullopt;
    const std::string_view frontend(syntax->get_string().data(), syntax->get_string().size());
    return Directive{"syntax", std::string(frontend), {line, line}};
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return std::nullopt;
  }
}

}  // namespace gantry::dockerfile
