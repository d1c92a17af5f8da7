#include <algorithm>

#include "base/error.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/syntax.hpp"
#include "dockerfile/utf8.hpp"

namespace gantry::dockerfile {
namespace {

std::ptrdiff_t count_quotes(std::string_view text) {
  return std::count(text.begin(), text.end(), '\'') + std::count(text.begin(), text.end(), '"');
}

}  // namespace

std::optional<Heredoc> parse_heredoc_word(std::string_view word) {
  std::string_view rest = word;
  while (!rest.empty() && is_digit(static_cast<unsigned char>(rest.front()))) rest.remove_prefix(1);
  if (!rest.starts_with("<<")) return std::nullopt;
  rest.remove_prefix(2);
  Heredoc heredoc;
  heredoc.strip_tabs = rest.starts_with('-');
  if (heredoc.strip_tabs) rest.remove_prefix(1);
  rest = trim_left_space(rest);
  if (rest.empty() || rest.find('<') != std::string_view::npos) return std::nullopt;
  ExpandOptions options;
  options.keep_unset = true;
  try {
    const Expansion plain = expand(rest, {}, options);
    if (plain.words.size() != 1) return std::nullopt;
    options.raw_quotes = true;
    const Expansion raw = expand(rest, {}, options);
    heredoc.name = plain.words.front();
    // Quotes that went away were around (a part of) the delimiter.
    heredoc.expand = raw.words.size() == 1 && count_quotes(raw.words.front()) == count_quotes(heredoc.name);
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return std::nullopt;  // no word of a shell, so no delimiter
  }
  return heredoc;
}

std::string strip_leading_tabs(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool at_start = true;
  for (const char c : text) {
    if (at_start && c == '\t') continue;
    at_start = c == '\n';
    out.push_back(c);
  }
  return out;
}

}  // namespace gantry::dockerfile
