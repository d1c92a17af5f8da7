#include "dockerfile/shell_pattern.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.hpp"
#include "dockerfile/utf8.hpp"

namespace gantry::dockerfile {
namespace {

/// Tells a hostile pair of value and pattern from a slow one: well below a second's work.
constexpr std::size_t kMaxSteps = 20'000'000;
constexpr std::size_t kMaxResult = 8 * 1024 * 1024;
constexpr std::size_t kNone = static_cast<std::size_t>(-1);

struct Token {
  enum class Kind : std::uint8_t { literal, any, run } kind = Kind::literal;
  char32_t value = 0;
};

[[noreturn]] void refuse(std::string_view pattern, const std::string& reason) {
  throw Error(Errc::invalid_argument, "invalid pattern (" + std::string(pattern) + ") in substitution: " + reason);
}

std::vector<Token> tokens_of(std::string_view pattern) {
  const std::u32string text = decode(pattern);
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char32_t c = text[i];
    if (c == '*') {
      if (tokens.empty() || tokens.back().kind != Token::Kind::run) tokens.push_back({Token::Kind::run, 0});
      continue;
    }
    if (c == '?') {
      tokens.push_back({Token::Kind::any, 0});
      continue;
    }
    if (c == '\\') {
      const char32_t next = i + 1 < text.size() ? text[i + 1] : 0;
      if (next == '}' || next == '/') continue;  // escaped for ${} only
      if (next != '*' && next != '?' && next != '\\') {
        std::string shown;
        append_char(shown, next == 0 ? U'\uFFFD' : next);
        refuse(pattern, "invalid escape '\\" + shown + "'");
      }
      c = next;
      ++i;
    }
    tokens.push_back({Token::Kind::literal, c});
  }
  return tokens;
}

/// Follows all ways to match at once, so that no pattern takes more than its length for each character.
class Matcher {
 public:
  Matcher(std::string_view pattern, std::vector<Token> tokens)
      : pattern_(pattern), tokens_(std::move(tokens)), now_(tokens_.size() + 1), next_(tokens_.size() + 1) {}

  /// Where the shortest or longest match that begins at `from` ends; kNone if there is none.
  std::size_t end_of_match(std::u32string_view value, std::size_t from, bool longest) {
    std::fill(now_.begin(), now_.end(), std::uint8_t{0});
    enter(now_, 0);
    std::size_t end = kNone;
    for (std::size_t at = from;; ++at) {
      if (now_.back() != 0) {
        end = at;
        if (!longest) return end;
      }
      if (at == value.size() || !step(value[at])) return end;
    }
  }

 private:
  void enter(std::vector<std::uint8_t>& active, std::size_t at) const {
    active[at] = 1;
    while (at < tokens_.size() && tokens_[at].kind == Token::Kind::run) active[++at] = 1;
  }

  bool step(char32_t c) {
    steps_ += tokens_.size() + 1;
    if (steps_ > kMaxSteps) refuse(pattern_, "it takes too long");
    std::fill(next_.begin(), next_.end(), std::uint8_t{0});
    bool alive = false;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (now_[i] == 0) continue;
      const Token& token = tokens_[i];
      if (token.kind == Token::Kind::literal ? token.value != c : c == '\n') continue;
      enter(next_, token.kind == Token::Kind::run ? i : i + 1);
      alive = true;
    }
    now_.swap(next_);
    return alive;
  }

  std::string_view pattern_;
  std::vector<Token> tokens_;
  std::vector<std::uint8_t> now_;
  std::vector<std::uint8_t> next_;
  std::size_t steps_ = 0;
};

}  // namespace

std::string trim_matching_prefix(std::string_view value, std::string_view pattern, bool greedy) {
  const std::u32string text = decode(value);
  const std::size_t end = Matcher(pattern, tokens_of(pattern)).end_of_match(text, 0, greedy);
  return end == kNone ? std::string(value) : encode(std::u32string_view(text).substr(end));
}

std::string trim_matching_suffix(std::string_view value, std::string_view pattern, bool greedy) {
  std::u32string text = decode(value);
  std::reverse(text.begin(), text.end());
  std::vector<Token> tokens = tokens_of(pattern);
  std::reverse(tokens.begin(), tokens.end());
  const std::size_t end = Matcher(pattern, std::move(tokens)).end_of_match(text, 0, greedy);
  if (end == kNone) return std::string(value);
  text.erase(0, end);
  std::reverse(text.begin(), text.end());
  return encode(text);
}

std::string replace_matching(std::string_view value, std::string_view pattern, std::string_view replacement, bool all) {
  const std::u32string text = decode(value);
  Matcher matcher(pattern, tokens_of(pattern));
  std::string out;
  std::size_t copied = 0;  // up to here is in `out`
  bool after_match = false;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = matcher.end_of_match(text, at, true);
    const bool empty_after_match = end == at && after_match && at == copied;
    if (end == kNone || empty_after_match) {
      after_match = false;
      ++at;
      continue;
    }
    out += encode(std::u32string_view(text).substr(copied, at - copied));
    out += replacement;
    if (out.size() > kMaxResult) refuse(pattern, "the result is too long");
    copied = end;
    if (!all) break;
    after_match = true;
    at = end > at ? end : at + 1;
  }
  return out + encode(std::u32string_view(text).substr(copied));
}

}  // namespace gantry::dockerfile
