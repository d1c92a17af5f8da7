#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/location.hpp"

/// The lexical layer: lines, comments, directives, continuations, heredocs and the shape of each instruction's
/// arguments. Knows no instruction's meaning; see dockerfile.hpp for that. Facts: BuildKit's
/// frontend/dockerfile/parser.
namespace gantry::dockerfile {

inline constexpr std::size_t kMaxDockerfileSize = 2 * 1024 * 1024;
inline constexpr std::size_t kMaxLineLength = 65535;
inline constexpr std::size_t kMaxInstructions = 10000;

/// `# syntax=…`, `# escape=…` and `# check=…` at the top of the file.
struct Directive {
  std::string name;  // lower case
  std::string value;
  LineRange lines;
};

struct Heredoc {
  std::string name;
  std::string content;      // the body as written, with each line's end
  bool expand = true;       // false: the delimiter was quoted
  bool strip_tabs = false;  // `<<-`
  bool operator==(const Heredoc&) const = default;
};

/// One `name=value` of ENV and LABEL, still with quotes and escapes.
struct KeyValue {
  std::string name;
  std::string value;
  bool legacy = false;  // written `NAME value`
  bool operator==(const KeyValue&) const = default;
};

/// One instruction as it was written.
struct Node {
  std::string keyword;             // as written: `run`, `RUN`, `RuN`
  std::string original;            // the whole instruction on one line, without heredoc bodies
  std::vector<std::string> flags;  // `--name`, `--name=value`
  std::vector<std::string> args;   // shape by instruction; empty for ENV and LABEL
  std::vector<KeyValue> pairs;     // ENV, LABEL
  bool json = false;               // the arguments were a JSON array
  std::vector<Heredoc> heredocs;
  std::vector<Node> trigger;  // ONBUILD: the instruction inside; none or one
  LineRange lines;
  std::vector<std::string> comments;  // lines of comment right above, without `#` and blanks around
};

struct Syntax {
  std::vector<Node> nodes;  // at least one
  char escape = '\\';
  std::vector<Directive> directives;
  std::vector<LineRange> empty_continuations;  // instructions with blank lines inside
};

/// Throws SourceError: `the Dockerfile cannot be empty`, `file with no instructions`, `unterminated heredoc`,
/// `dockerfile line greater than max allowed size of 65535`, `only one X parser directive can be used`, …; also when
/// the file is larger than kMaxDockerfileSize or has more than kMaxInstructions. Linear in the size of the text.
Syntax parse_syntax(std::string_view text);

/// The value of a directive, read without parsing the rest, so that also a file with errors tells it.
std::optional<Directive> find_directive(std::string_view text, std::string_view name);

/// The frontend that a file asks for: `# syntax=`, `// syntax=` or `{"syntax": …}`, below an optional `#!` line.
std::optional<Directive> detect_syntax(std::string_view text);

/// A word as `<<EOF` or `3<<-"EOF"`; nullopt if it is none. The content is empty.
std::optional<Heredoc> parse_heredoc_word(std::string_view word);
/// The text without the tabs that lines begin with.
std::string strip_leading_tabs(std::string_view text);

/// Words of ENV, LABEL and ARG: cut at blanks outside quotes; quotes and escapes stay.
std::vector<std::string> split_words(std::string_view text, char escape);

}  // namespace gantry::dockerfile
