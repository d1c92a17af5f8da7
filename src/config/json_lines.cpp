#include "config/json_lines.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <boost/json/parse.hpp>
#include <boost/json/string.hpp>

#include "base/expect.hpp"

namespace gantry::config {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/// Walks the text once. The parser's depth limit bounds the recursion.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  JsonLines run() {
    value("");
    return std::move(lines_);
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    for (; at_ < text_.size() && is_space(text_[at_]); ++at_)
      if (text_[at_] == '\n') ++line_;
  }

  std::string string() {
    std::size_t start = at_++;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    ++at_;
    ENSURES(at_ <= text_.size());
    // Decoded by the parser itself, so that "log\u002dlevel" has the path that its reader will use.
    auto decoded = boost::json::parse(text_.substr(start, at_ - start));
    return std::string(decoded.get_string());
  }

  void object(const std::string& path) {
    ++at_;
    for (skip_space(); peek() != '}'; skip_space()) {
      int line = line_;
      std::string key = string();
      std::string inner = path.empty() ? key : fmt::format("{}.{}", path, key);
      auto [known, fresh] = lines_.line_of.emplace(inner, line);
      if (!fresh) {
        lines_.duplicates.push_back({inner, known->second, line});
        known->second = line;
      }
      skip_space();
      ++at_;  // the colon
      value(inner);
      skip_space();
      if (peek() == ',') ++at_;
    }
    ++at_;
  }

  void array(const std::string& path) {
    ++at_;
    int index = 0;
    for (skip_space(); peek() != ']'; skip_space()) {
      std::string inner = path + "[" + std::to_string(index++) + "]";
      lines_.line_of.emplace(inner, line_);
      value(inner);
      skip_space();
      if (peek() == ',') ++at_;
    }
    ++at_;
  }

  void value(const std::string& path) {
    skip_space();
    if (peek() == '{') object(path);
    else if (peek() == '[') array(path);
    else if (peek() == '"') string();
    else
      while (at_ < text_.size() && !is_space(peek()) && std::string_view(",]}").find(peek()) == std::string_view::npos)
        ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  JsonLines lines_;
};

}  // namespace

JsonLines scan_json_lines(std::string_view text) { return Scanner(text).run(); }

JsonFault explain_json_fault(std::string_view text, std::size_t offset) {
  offset = std::min(offset, text.size());
  JsonFault fault;
  fault.line = 1 + static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n'));
  std::size_t line_start = offset == 0 ? std::string_view::npos : text.rfind('\n', offset - 1);
  std::size_t column = offset - (line_start == std::string_view::npos ? 0 : line_start + 1) + 1;

  std::size_t before = offset;
  while (before > 0 && is_space(text[before - 1])) --before;
  char previous = before > 0 ? text[before - 1] : '\0';
  char found = offset < text.size() ? text[offset] : '\0';
  std::string why;
  if (offset >= text.size()) why = "the text ends before everything that was opened is closed";
  else if (previous == ',' && (found == '}' || found == ']')) why = "there must be no comma before the closing bracket";
  else if (found == '"' && previous != ',' && previous != '{' && previous != '[')
    why = "a comma is missing before this";
  else if (found == '/' || found == '#') why = "comments are not allowed";
  else if (found == '\'') why = "strings are written in double quotes";
  else if (found == '\n') why = "the string or word is not closed on its line";
  else why = "this is not expected here";
  fault.message = "invalid JSON at column " + std::to_string(column) + ": " + why;
  return fault;
}

}  // namespace gantry::config
