#include "dockerfile/arguments.hpp"

#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/utf8.hpp"
#include "json/json.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::string_view kBlanks = "\t\v\f\r ";
constexpr int kMaxTriggerDepth = 2;  // ONBUILD ONBUILD is refused by its own message; deeper nesting is not looked at

enum class Shape {
  maybe_json,       // a JSON array of strings, else the whole text
  maybe_json_list,  // a JSON array of strings, else words
  words,
  text,
  name_values,
  names,  // ARG
  health,
  trigger,
  unknown,
};

Shape shape_of(std::string_view keyword) {
  if (keyword == "RUN" || keyword == "CMD" || keyword == "ENTRYPOINT" || keyword == "SHELL") return Shape::maybe_json;
  if (keyword == "COPY" || keyword == "ADD" || keyword == "VOLUME") return Shape::maybe_json_list;
  if (keyword == "FROM" || keyword == "EXPOSE") return Shape::words;
  if (keyword == "USER" || keyword == "WORKDIR" || keyword == "STOPSIGNAL" || keyword == "MAINTAINER")
    return Shape::text;
  if (keyword == "ENV" || keyword == "LABEL") return Shape::name_values;
  if (keyword == "ARG") return Shape::names;
  if (keyword == "HEALTHCHECK") return Shape::health;
  if (keyword == "ONBUILD") return Shape::trigger;
  return Shape::unknown;
}

std::vector<std::string> split_blanks(std::string_view text) {
  std::vector<std::string> words;
  while (true) {
    const std::size_t start = text.find_first_not_of(kBlanks);
    if (start == std::string_view::npos) return words;
    const std::size_t end = text.find_first_of(kBlanks, start);
    words.emplace_back(text.substr(start, end - start));
    if (end == std::string_view::npos) return words;
    text.remove_prefix(end);
  }
}

/// Fills the arguments if the text is a JSON array. Throws if it is one, but not of strings.
bool parse_json_arguments(std::string_view text, Node& node) {
  text = trim_left_space(text);
  if (!text.starts_with('[')) return false;
  json::Value value;
  try {
    value = json::parse(text);
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return false;
  }
  for (const json::Value& item : value.as_array()) {
    if (!item.is_string())
      throw Error(Errc::invalid_argument, "when using JSON array syntax, arrays must be comprised of strings only");
    node.args.emplace_back(item.get_string().data(), item.get_string().size());
  }
  node.json = true;
  return true;
}

void parse_name_values(std::string_view text, std::string_view keyword, char escape, Node& node) {
  const std::vector<std::string> words = split_words(text, escape);
  if (words.empty()) return;
  if (words.front().find('=') == std::string::npos) {
    const std::size_t end = text.find_first_of(kBlanks);
    if (end == std::string_view::npos)
      throw Error(Errc::invalid_argument, std::string(keyword) + " must have two arguments");
    const std::size_t value = text.find_first_not_of(kBlanks, end);
    node.pairs.push_back({std::string(text.substr(0, end)),
                          value == std::string_view::npos ? "" : std::string(text.substr(value)), true});
    return;
  }
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos)
      throw Error(Errc::invalid_argument,
                  "Syntax error - can't find = in " + quote(word) + ". Must be of the form: name=value");
    node.pairs.push_back({word.substr(0, equals), word.substr(equals + 1), false});
  }
}

void parse_health(std::string_view text, Node& node) {
  std::size_t end = 0;
  while (end < text.size() && !is_ascii_space(text[end])) ++end;
  if (end == 0) return;
  const std::string_view rest = trim_left_space(text.substr(end));
  Node command;
  if (!rest.empty() && !parse_json_arguments(rest, command)) command.args.emplace_back(rest);
  node.json = command.json;
  node.args.emplace_back(text.substr(0, end));
  for (std::string& arg : command.args) node.args.push_back(std::move(arg));
}

/// Takes the words that begin with `--` off the text. Quotes and backslashes (whatever the file's escape character is)
/// in them are removed.
std::string_view take_flags(std::string_view text, std::vector<std::string>& flags) {
  while (true) {
    text = trim_left_space(text);
    if (!text.starts_with("--")) return text;
    std::string word;
    char quote_char = '\0';
    std::size_t at = 0;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (c == '\\') {
        if (++at < text.size()) word.push_back(text[at]);
        continue;
      }
      if (quote_char != '\0' ? c == quote_char : (c == '\'' || c == '"')) {
        quote_char = quote_char == '\0' ? c : '\0';
        continue;
      }
      if (quote_char == '\0' && is_ascii_space(c)) break;
      word.push_back(c);
    }
    text.remove_prefix(std::min(at, text.size()));
    if (word == "--") return text;
    flags.push_back(std::move(word));
  }
}

Node parse_nested(std::string_view line, char escape, int depth);

void parse_arguments(std::string_view text, std::string_view keyword, char escape, int depth, Node& node) {
  switch (shape_of(keyword)) {
    case Shape::maybe_json:
      if (!text.empty() && !parse_json_arguments(text, node)) node.args.emplace_back(text);
      return;
    case Shape::maybe_json_list:
      if (!parse_json_arguments(text, node)) node.args = split_blanks(text);
      return;
    case Shape::words: node.args = split_blanks(text); return;
    case Shape::text:
      if (!text.empty()) node.args.emplace_back(text);
      return;
    case Shape::name_values: parse_name_values(text, keyword, escape, node); return;
    case Shape::names: node.args = split_words(text, escape); return;
    case Shape::health: parse_health(text, node); return;
    case Shape::trigger:
      if (!text.empty() && depth < kMaxTriggerDepth) node.trigger.push_back(parse_nested(text, escape, depth + 1));
      return;
    case Shape::unknown: return;
  }
}

Node parse_nested(std::string_view line, char escape, int depth) {
  Node node;
  node.original = std::string(line);
  const std::string_view text = trim_space(line);
  const std::size_t end = text.find_first_of(kBlanks);
  node.keyword = std::string(text.substr(0, end));
  if (end == std::string_view::npos) {
    parse_arguments("", to_upper(node.keyword), escape, depth, node);
    return node;
  }
  const std::string_view rest = take_flags(text.substr(end), node.flags);
  parse_arguments(trim_space(rest), to_upper(node.keyword), escape, depth, node);
  return node;
}

}  // namespace

const std::vector<std::string>& instruction_names() {
  static const std::vector<std::string> kNames = {"ADD",    "ARG",   "CMD",         "COPY",  "ENTRYPOINT", "ENV",
                                                  "EXPOSE", "FROM",  "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
                                                  "RUN",    "SHELL", "STOPSIGNAL",  "USER",  "VOLUME",     "WORKDIR"};
  return kNames;
}

Node parse_line(std::string_view line, char escape) { return parse_nested(line, escape, 0); }

std::vector<std::string> split_words(std::string_view text, char escape) {
  std::vector<std::string> words;
  std::string word;
  bool quoted_empty = false;  // '' is a word, too
  char quote_char = '\0';
  const auto end_word = [&] {
    if (quoted_empty || !word.empty()) words.push_back(word);
    word.clear();
    quoted_empty = false;
  };
  for (std::size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    if (quote_char == '\0' && is_space(c.value)) {
      end_word();
      at += c.length;
      continue;
    }
    if (c.value == static_cast<unsigned char>(escape) && quote_char != '\'') {
      if (at + 1 == text.size()) break;  // nothing to escape
      const std::size_t next = decode_char(text, at + 1).length;
      word.append(text.substr(at, 1 + next));
      at += 1 + next;
      continue;
    }
    if (quote_char == '\0' && (c.value == '\'' || c.value == '"')) {
      quote_char = static_cast<char>(c.value);
      quoted_empty = true;
    } else if (quote_char != '\0' && c.value == static_cast<unsigned char>(quote_char)) {
      quote_char = '\0';
    }
    word.append(text.substr(at, c.length));
    at += c.length;
  }
  end_word();
  return words;
}

}  // namespace gantry::dockerfile
