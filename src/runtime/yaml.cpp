#include "runtime/yaml.hpp"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::runtime {
namespace {

constexpr int kDeepest = 32;

struct Line {
  std::size_t number = 0;
  std::size_t indent = 0;
  std::string text;  // without indentation and comment
};

[[noreturn]] void reject(const Line& line, std::string_view why) {
  throw Error(Errc::invalid_argument, fmt::format("line {}: {}", line.number, why));
}

/// Where a comment begins outside of quotes, or npos.
std::size_t comment_at(std::string_view text) {
  char quoted = '\0';
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted == '"' && c == '\\') ++i;
    else if (quoted != '\0') quoted = c == quoted ? '\0' : quoted;
    else if ((c == '"' || c == '\'') && (i == 0 || text[i - 1] == ' ')) quoted = c;
    else if (c == '#' && (i == 0 || text[i - 1] == ' ')) return i;
  }
  return std::string_view::npos;
}

std::vector<Line> read_lines(std::string_view text) {
  std::vector<Line> lines;
  std::size_t number = 0;
  for (const std::string& raw : split(text, '\n')) {
    ++number;
    const std::string_view shown = std::string_view(raw).substr(0, comment_at(raw));
    const auto content = trim(shown);
    if (content.empty() || (content == "---" && lines.empty())) continue;
    const std::size_t indent = shown.find_first_not_of(' ');
    Line line{number, indent, std::string(content)};
    if (shown[indent] == '\t') reject(line, "tabs cannot indent");
    if (content == "---" || content == "...") reject(line, "more than one document");
    lines.push_back(std::move(line));
  }
  return lines;
}

json::Value scalar(const Line& line, std::string_view text) {
  if (text.empty() || text == "null" || text == "~") return nullptr;
  const char first = text.front();
  if (first == '"' || first == '[' || first == '{') {
    try {
      return json::parse(std::string(text));
    } catch (const Error&) {
      reject(line, "only JSON's form of a quoted text or of a collection on one line is understood");
    }
  }
  if (first == '\'') {
    if (text.size() < 2 || text.back() != '\'') reject(line, "a quoted text does not end");
    std::string plain;
    for (std::size_t i = 1; i + 1 < text.size(); ++i) {
      plain.push_back(text[i]);
      if (text[i] == '\'') ++i;
    }
    return json::Value(boost::json::string(plain));
  }
  if (std::string_view("&*!|>%@`").find(first) != std::string_view::npos)
    reject(line, "anchors, tags and block texts are not understood");
  if (text == "true" || text == "false") return text == "true";
  if (const auto number = parse_int(text)) {
    // "0660" is octal, as file modes are written.
    if (text.size() > 1 && text.front() == '0')
      if (const auto octal = std::string(text); octal.find_first_not_of("01234567") == std::string::npos)
        return static_cast<std::int64_t>(std::stoll(octal, nullptr, 8));
    return *number;
  }
  return json::Value(boost::json::string(text));
}

/// Where "key: value" is divided, or npos.
std::size_t colon_at(std::string_view text) {
  if (!text.empty() && (text.front() == '"' || text.front() == '\'' || text.front() == '[' || text.front() == '{'))
    return std::string_view::npos;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == ':' && (i + 1 == text.size() || text[i + 1] == ' ')) return i;
  return std::string_view::npos;
}

class Parser {
 public:
  explicit Parser(std::vector<Line> lines) : lines_(std::move(lines)) {}

  json::Value run() {
    if (lines_.empty()) return nullptr;
    json::Value value = block(lines_.front().indent, 0);
    if (at_ < lines_.size()) reject(lines_[at_], "unexpected indentation");
    return value;
  }

 private:
  bool is_item() const { return lines_[at_].text == "-" || lines_[at_].text.starts_with("- "); }

  json::Value block(std::size_t indent, int depth) {
    if (depth > kDeepest) reject(lines_[at_], "nested too deeply");
    if (is_item()) return sequence(indent, depth);
    if (colon_at(lines_[at_].text) != std::string_view::npos) return mapping(indent, depth);
    const Line& line = lines_[at_++];
    return scalar(line, line.text);
  }

  json::Value sequence(std::size_t indent, int depth) {
    json::Array out;
    while (at_ < lines_.size() && lines_[at_].indent == indent && is_item()) {
      Line& line = lines_[at_];
      const std::size_t content = line.text.find_first_not_of(' ', 1);
      if (content == std::string::npos) {
        ++at_;
        out.push_back(below(indent + 1, depth));
        continue;
      }
      // What follows the dash is a block of its own, as if it began on a line at its column.
      line.indent += content;
      line.text.erase(0, content);
      out.push_back(block(line.indent, depth + 1));
    }
    return out;
  }

  json::Value mapping(std::size_t indent, int depth) {
    json::Object out;
    while (at_ < lines_.size() && lines_[at_].indent == indent && !is_item()) {
      const Line line = lines_[at_++];
      const std::size_t colon = colon_at(line.text);
      if (colon == std::string::npos) reject(line, "expected \"key: value\"");
      const auto key = trim(std::string_view(line.text).substr(0, colon));
      const auto rest = trim(std::string_view(line.text).substr(colon + 1));
      if (out.contains(key)) reject(line, fmt::format("{} is there twice", quote(key)));
      out.emplace(key, rest.empty() ? below_key(indent, depth) : scalar(line, rest));
    }
    return out;
  }

  /// The value of a key without one on its line; a sequence may stand at the key's own column.
  json::Value below_key(std::size_t indent, int depth) {
    if (at_ < lines_.size() && lines_[at_].indent == indent && is_item()) return sequence(indent, depth + 1);
    return below(indent + 1, depth);
  }

  json::Value below(std::size_t least, int depth) {
    if (at_ >= lines_.size() || lines_[at_].indent < least) return nullptr;
    return block(lines_[at_].indent, depth + 1);
  }

  std::vector<Line> lines_;
  std::size_t at_ = 0;
};

}  // namespace

json::Value parse_yaml(std::string_view text) { return Parser(read_lines(text)).run(); }

}  // namespace gantry::runtime
