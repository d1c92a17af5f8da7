#include "dockerfile/syntax.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.hpp"
#include "dockerfile/arguments.hpp"
#include "dockerfile/directives.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/utf8.hpp"

namespace gantry::dockerfile {
namespace {

std::string_view trim_newline(std::string_view line) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

bool is_comment(std::string_view line) { return trim_left_space(line).starts_with('#'); }

/// Removes an escape character at the end (blanks may follow it) unless another one escapes it.
bool take_continuation(std::string_view& line, char escape) {
  std::string_view text = line;
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  if (!text.ends_with(escape)) return false;
  text.remove_suffix(1);
  if (text.ends_with(escape)) return false;
  line = text;
  return true;
}

bool may_have_heredocs(const Node& node) {
  const std::string keyword = to_upper(node.keyword);
  if (keyword == "ONBUILD") return !node.trigger.empty() && may_have_heredocs(node.trigger.front());
  return (keyword == "RUN" || keyword == "COPY" || keyword == "ADD") && !node.json;
}

std::vector<Heredoc> heredocs_in(std::string_view line) {
  std::vector<Heredoc> found;
  if (line.find("<<") == std::string_view::npos) return found;
  ExpandOptions options;
  options.raw_quotes = true;
  options.raw_escapes = true;
  options.keep_unset = true;
  try {
    for (const std::string& word : expand(line, {}, options).words)
      if (auto heredoc = parse_heredoc_word(word)) found.push_back(std::move(*heredoc));
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    found.clear();  // not the words of a shell that ends its quotes: no heredoc can be meant
  }
  return found;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {
    if (rest_.starts_with("\xEF\xBB\xBF")) rest_.remove_prefix(3);
  }

  Syntax run() {
    std::string_view line;
    while (next(line)) read_instruction(line);
    if (syntax_.nodes.empty()) throw SourceError("file with no instructions", {line_, line_});
    syntax_.directives = directives_.take();
    return std::move(syntax_);
  }

 private:
  /// The next line with its end.
  bool next(std::string_view& line) {
    if (rest_.empty()) return false;
    ++line_;
    const std::size_t end = rest_.find('\n');
    line = rest_.substr(0, end == std::string_view::npos ? end : end + 1);
    rest_.remove_prefix(line.size());
    if (line.size() - (line.ends_with('\n') ? 1 : 0) > kMaxLineLength)
      throw SourceError("dockerfile line greater than max allowed size of 65535", {line_, line_});
    return true;
  }

  /// Is the line done with: blank, comment or directive?
  bool skip(std::string_view line) {
    if (directives_.read(line, line_)) {
      if (directives_.escape() != '\0') syntax_.escape = directives_.escape();
      comments_.clear();
      return true;
    }
    if (line.starts_with('#')) {
      const std::string_view comment = trim_space(line.substr(1));
      if (comment.empty()) {
        comments_.clear();
      } else {
        comments_.emplace_back(comment);
      }
      return true;
    }
    if (line.empty()) comments_.clear();
    return line.empty();
  }

  void read_instruction(std::string_view first) {
    std::string_view line = trim_left_space(trim_newline(first));
    if (skip(line)) return;
    const int start = line_;
    bool goes_on = take_continuation(line, syntax_.escape);
    std::string joined(line);
    bool blank_inside = false;
    while (goes_on && next(line)) {
      line = trim_newline(line);
      if (is_comment(line)) continue;
      if (trim_left_space(line).empty()) {
        blank_inside = true;
        continue;
      }
      goes_on = take_continuation(line, syntax_.escape);
      joined += line;
    }
    if (syntax_.nodes.size() == kMaxInstructions)
      throw SourceError("the Dockerfile has too many instructions", {start, line_});
    Node node = parse(joined, start);
    if (blank_inside) syntax_.empty_continuations.push_back({start, line_});
    if (may_have_heredocs(node)) read_heredocs(joined, start, node);
    node.lines = {start, line_};
    node.comments = std::exchange(comments_, {});
    syntax_.nodes.push_back(std::move(node));
  }

  Node parse(const std::string& line, int start) {
    try {
      return parse_line(line, syntax_.escape);
    } catch (const Error& e) {
      throw SourceError(e.message(), {start, line_});
    }
  }

  void read_heredocs(const std::string& line, int start, Node& node) {
    for (Heredoc& heredoc : heredocs_in(line)) {
      bool ended = false;
      for (std::string_view body; !ended && next(body);) {
        std::string_view delimiter = trim_newline(body);
        if (heredoc.strip_tabs) delimiter.remove_prefix(std::min(delimiter.find_first_not_of('\t'), delimiter.size()));
        ended = delimiter == heredoc.name;
        if (!ended) heredoc.content += body;
      }
      if (!ended) throw SourceError("unterminated heredoc", {start, line_});
      node.heredocs.push_back(std::move(heredoc));
    }
  }

  std::string_view rest_;
  int line_ = 0;
  DirectiveReader directives_{"#"};
  std::vector<std::string> comments_;
  Syntax syntax_;
};

}  // namespace

Syntax parse_syntax(std::string_view text) {
  if (text.empty()) throw SourceError("the Dockerfile cannot be empty", {});
  if (text.size() > kMaxDockerfileSize)
    throw SourceError("the Dockerfile is larger than " + std::to_string(kMaxDockerfileSize) + " bytes", {});
  return Reader(text).run();
}

}  // namespace gantry::dockerfile
