#include "dockerfile/expand.hpp"

#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/shell_pattern.hpp"
#include "dockerfile/utf8.hpp"

namespace gantry::dockerfile {
namespace {

[[noreturn]] void refuse(const std::string& reason) { throw Error(Errc::invalid_argument, reason); }

/// Collects words: blanks that come from the text or from a variable end a word, those from quotes and escapes do not.
class WordList {
 public:
  void add(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
      const DecodedChar c = decode_char(text, at);
      if (is_space(c.value)) {
        end_word();
      } else {
        word_.append(text.substr(at, c.length));
      }
      at += c.length;
    }
  }
  void add_raw(std::string_view text) { word_.append(text); }
  std::vector<std::string> take() {
    end_word();
    return std::move(words_);
  }

 private:
  void end_word() {
    if (word_.empty()) return;
    words_.push_back(std::move(word_));
    word_.clear();
  }

  std::string word_;
  std::vector<std::string> words_;
};

bool is_special_parameter(char c) { return std::string_view("@*#?-$!0").find(c) != std::string_view::npos; }

/// One pass over a word. Works on bytes: every character with a meaning is ASCII.
class Expander {
 public:
  Expander(std::string_view text, const Environment& environment, const ExpandOptions& options, Expansion& result)
      : text_(text), environment_(environment), options_(options), result_(result) {}

  void run() {
    WordList words;
    result_.text = until('\0', options_.raw_escapes, &words);
    result_.words = words.take();
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }
  bool next_is(char c) const { return !at_end() && peek() == c; }

  void append(std::string& out, std::string_view piece) {
    produced_ += piece.size();
    if (produced_ > kMaxExpansion) refuse("the expanded text is too long");
    out.append(piece);
  }

  /// Everything up to `stop` (which is consumed), or to the end if it is '\0'.
  std::string until(char stop, bool raw_escapes, WordList* words) {
    if (++depth_ > kMaxExpansionDepth) refuse("substitutions are nested too deeply");
    std::string out;
    while (!at_end()) {
      const char c = peek();
      if (stop != '\0' && c == stop) {
        ++at_;
        --depth_;
        return out;
      }
      if (c == '$') {
        const std::string value = dollar(raw_escapes);
        append(out, value);
        if (words != nullptr) words->add(value);
      } else if ((c == '\'' || c == '"') && !options_.ignore_quotes) {
        const std::string value = c == '"' ? double_quoted(raw_escapes) : single_quoted();
        append(out, value);
        if (words != nullptr) words->add_raw(value);
      } else if (c == options_.escape) {
        const std::string value = escaped(raw_escapes);
        append(out, value);
        if (words != nullptr) words->add_raw(value);
      } else {
        plain(out, stop, words);
      }
    }
    if (stop != '\0') refuse(std::string("unexpected end of statement while looking for matching ") + stop);
    --depth_;
    return out;
  }

  /// A run of characters without a meaning.
  void plain(std::string& out, char stop, WordList* words) {
    const std::size_t start = at_;
    do {
      ++at_;
    } while (!at_end() && peek() != '$' && peek() != options_.escape && (stop == '\0' || peek() != stop) &&
             (options_.ignore_quotes || (peek() != '\'' && peek() != '"')));
    const std::string_view piece = text_.substr(start, at_ - start);
    append(out, piece);
    if (words != nullptr) words->add(piece);
  }

  std::string escaped(bool raw_escapes) {
    std::string out;
    if (raw_escapes) out.push_back(peek());
    ++at_;
    if (at_end()) return out;
    const std::size_t length = decode_char(text_, at_).length;
    out.append(text_.substr(at_, length));
    at_ += length;
    return out;
  }

  std::string single_quoted() {
    const std::size_t end = text_.find('\'', at_ + 1);
    if (end == std::string_view::npos) {
      at_ = text_.size();
      refuse("unexpected end of statement while looking for matching single-quote");
    }
    const std::size_t start = at_;
    at_ = end + 1;
    return std::string(options_.raw_quotes ? text_.substr(start, end + 1 - start)
                                           : text_.substr(start + 1, end - start - 1));
  }

  std::string double_quoted(bool raw_escapes) {
    std::string out;
    if (options_.raw_quotes) out.push_back('"');
    ++at_;
    while (!at_end()) {
      const char c = peek();
      if (c == '"') {
        ++at_;
        if (options_.raw_quotes) out.push_back('"');
        return out;
      }
      if (c == '$') {
        append(out, dollar(raw_escapes));
        continue;
      }
      ++at_;
      const bool escapes =
          c == options_.escape && !at_end() && (peek() == '"' || peek() == '$' || peek() == options_.escape);
      if (!escapes || raw_escapes) out.push_back(c);
      if (escapes) out.push_back(text_[at_++]);
    }
    refuse("unexpected end of statement while looking for matching double-quote");
  }

  std::string name() {
    if (at_end()) return "";
    const std::size_t start = at_;
    if (is_digit(static_cast<unsigned char>(peek()))) {
      while (!at_end() && is_digit(static_cast<unsigned char>(peek()))) ++at_;
    } else if (is_special_parameter(peek())) {
      ++at_;
    } else {
      while (!at_end()) {
        const DecodedChar c = decode_char(text_, at_);
        if (!is_letter(c.value) && !is_digit(c.value) && c.value != '_') break;
        at_ += c.length;
      }
    }
    return std::string(text_.substr(start, at_ - start));
  }

  const std::string* look_up(const std::string& name) {
    const std::string* value = environment_.find(name);
    (value == nullptr ? result_.unmatched : result_.matched).insert(name);
    return value;
  }

  std::string dollar(bool raw_escapes) {
    ++at_;
    if (!next_is('{')) {
      const std::string variable = name();
      if (variable.empty()) return "$";
      const std::string* value = look_up(variable);
      if (value == nullptr) return options_.keep_unset ? "$" + variable : "";
      return *value;
    }
    ++at_;
    if (at_end()) refuse("syntax error: missing '}'");
    if (peek() == '{' || peek() == '}' || peek() == ':') refuse("syntax error: bad substitution");
    const std::string variable = name();
    if (at_end()) refuse("syntax error: missing '}'");
    const char modifier = peek();
    if (modifier == '}') {
      ++at_;
      const std::string* value = look_up(variable);
      if (value == nullptr) return options_.keep_unset ? "${" + variable + "}" : "";
      return *value;
    }
    if (modifier == '/') return replaced(variable);
    return modified(variable, raw_escapes);
  }

  /// `until`, with the complaint about a missing end that names the substitution.
  std::string part(char stop, bool raw_escapes, const char* missing) {
    const int depth = depth_;
    try {
      return until(stop, raw_escapes, nullptr);
    } catch (const Error&) {
      if (!at_end()) throw;
      depth_ = depth;
      refuse(missing);
    }
  }

  std::string modified(const std::string& variable, bool raw_escapes) {
    std::string shown;
    const bool empty_is_unset = peek() == ':';
    if (empty_is_unset) {
      shown.push_back(':');
      ++at_;
      if (at_end()) refuse("syntax error: missing '}'");
    }
    const std::size_t length = decode_char(text_, at_).length;
    const char modifier = length == 1 ? peek() : '\0';
    shown.append(text_.substr(at_, length));
    at_ += length;
    const bool trims = modifier == '#' || modifier == '%';
    const bool known = trims || modifier == '-' || modifier == '+' || modifier == '?';
    if (!known || (trims && empty_is_unset)) refuse("unsupported modifier (" + shown + ") in substitution");
    const std::string word = part('}', trims || raw_escapes, "syntax error: missing '}'");
    const std::string* value = look_up(variable);
    if (value == nullptr && options_.keep_unset) return "${" + variable + shown + word + "}";
    const bool set = value != nullptr && !(empty_is_unset && value->empty());
    switch (modifier) {
      case '-': return set ? *value : word;
      case '+': return set ? word : "";
      case '?':
        if (set) return *value;
        refuse(variable + ": " +
               (!word.empty()      ? word
                : value == nullptr ? "is not allowed to be unset"
                                   : "is not allowed to be empty"));
      default: return trimmed(value == nullptr ? "" : *value, word, modifier);
    }
  }

  static std::string trimmed(const std::string& value, std::string_view pattern, char modifier) {
    const bool greedy = !pattern.empty() && pattern.front() == modifier;
    if (greedy) pattern.remove_prefix(1);
    return modifier == '%' ? trim_matching_suffix(value, pattern, greedy)
                           : trim_matching_prefix(value, pattern, greedy);
  }

  std::string replaced(const std::string& variable) {
    ++at_;
    const bool all = next_is('/');
    if (all) ++at_;
    const std::string pattern = part('/', true, "syntax error: missing '/' in ${}");
    const std::string replacement = part('}', true, "syntax error: missing '}'");
    const std::string* value = look_up(variable);
    if (value == nullptr && options_.keep_unset)
      return "${" + variable + (all ? "//" : "/") + pattern + "/" + replacement + "}";
    return replace_matching(value == nullptr ? "" : *value, pattern, replacement, all);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  const Environment& environment_;
  const ExpandOptions& options_;
  Expansion& result_;
  std::size_t produced_ = 0;
  int depth_ = 0;
};

}  // namespace

Expansion expand(std::string_view word, const Environment& environment, const ExpandOptions& options,
                 Expansion* looked_up) {
  Expansion result;
  const auto tell = [&] {
    if (looked_up == nullptr) return;
    looked_up->matched.insert(result.matched.begin(), result.matched.end());
    looked_up->unmatched.insert(result.unmatched.begin(), result.unmatched.end());
  };
  try {
    Expander(word, environment, options, result).run();
  } catch (Error& e) {
    tell();
    e.prefix("failed to process " + quote(word.substr(0, 4096)));
    throw;
  }
  tell();
  return result;
}

}  // namespace gantry::dockerfile
