#include "dockerfile/path_pattern.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "dockerfile/utf8.hpp"

namespace gantry::dockerfile {
namespace {

[[noreturn]] void refuse() { throw Error(Errc::invalid_argument, "syntax error in pattern"); }

using Range = std::pair<char32_t, char32_t>;

/// One end of a range in a class: a character, or `\` and one. Advances `at`; false if there is none.
bool take_member(std::u32string_view text, std::size_t& at, char32_t& out) {
  if (at >= text.size() || text[at] == '-' || text[at] == ']') return false;
  if (text[at] == '\\' && ++at >= text.size()) return false;
  out = text[at++];
  return at < text.size();
}

/// The class that begins after `[` at `at`, up to and with `]`.
bool take_class(std::u32string_view text, std::size_t& at, bool& negated, std::vector<Range>& ranges) {
  negated = at < text.size() && text[at] == '^';
  if (negated) ++at;
  while (at < text.size()) {
    if (text[at] == ']' && !ranges.empty()) {
      ++at;
      return true;
    }
    Range range;
    if (!take_member(text, at, range.first)) return false;
    range.second = range.first;
    if (text[at] == '-') {
      ++at;
      if (!take_member(text, at, range.second)) return false;
    }
    ranges.push_back(range);
  }
  return false;
}

}  // namespace

bool is_valid_glob(std::string_view pattern) {
  const std::u32string text = decode(pattern);
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = text[at++];
    if (c == '\\' && at++ == text.size()) return false;
    bool negated = false;
    std::vector<Range> ranges;
    if (c == '[' && !take_class(text, at, negated, ranges)) return false;
  }
  return true;
}

PathPattern::PathPattern(std::string_view text) {
  if (!is_valid_glob(text)) refuse();
  const std::u32string pattern = decode(text);
  const auto make = [&](Op op, char32_t value = 0) {
    Step step;
    step.op = op;
    step.value = value;
    steps_.push_back(std::move(step));
  };
  bool leading = false;  // `**` at the very beginning, and nothing but literals since
  for (std::size_t at = 0; at < pattern.size();) {
    const bool first = at == 0;
    const char32_t c = pattern[at++];
    const bool twice = c == '*' && at < pattern.size() && pattern[at] == '*';
    if (twice) {
      ++at;
      if (at < pattern.size() && pattern[at] == '/') ++at;
      const bool last = at == pattern.size();
      if (last && !first && kind_ == Kind::exact) {
        kind_ = Kind::prefix;
      } else if (first) {
        kind_ = Kind::suffix;
        leading = true;
      } else {
        kind_ = Kind::glob;
      }
      make(last ? Op::run : Op::run_then_slash);
      continue;
    }
    const bool wildcard = c == '*' || c == '?' || c == '[' || c == ']' || c == '\\';
    if (wildcard) kind_ = Kind::glob;
    if (c == '*') {
      make(Op::run_but_slash);
    } else if (c == '?') {
      make(Op::any_but_slash);
    } else if (c == '[') {
      add_set(pattern, at);
    } else if (c == '\\') {
      make(Op::character, pattern[at++]);
    } else {
      make(c == '^' ? Op::beginning : Op::character, c);
    }
  }
  if (kind_ == Kind::suffix && leading) {
    // `**/x` is x and everything that ends with /x; `**x` everything that ends with x.
    suffix_ = std::string(text.substr(2));
    steps_.clear();
    return;
  }
  if (kind_ == Kind::exact || kind_ == Kind::prefix) {
    prefix_ = std::string(kind_ == Kind::exact ? text : text.substr(0, text.find("**")));
    steps_.clear();
    return;
  }
  add_literals();
}

void PathPattern::add_set(std::u32string_view text, std::size_t& at) {
  Step step;
  step.op = Op::set;
  take_class(text, at, step.negated, step.ranges);
  steps_.push_back(std::move(step));
}

/// What a match must begin and end with, to reject most paths without running the steps.
void PathPattern::add_literals() {
  const auto is_literal = [](const Step& step) { return step.op == Op::character; };
  const auto first_wild = std::find_if_not(steps_.begin(), steps_.end(), is_literal);
  for (auto step = steps_.begin(); step != first_wild; ++step) append_char(prefix_, step->value);
  if (first_wild == steps_.end()) return;
  auto last_wild = steps_.end();
  while (is_literal(*std::prev(last_wild))) --last_wild;
  for (auto step = last_wild; step != steps_.end(); ++step) append_char(suffix_, step->value);
  std::string literal;
  for (auto step = first_wild; step != last_wild; ++step) {
    if (is_literal(*step)) {
      append_char(literal, step->value);
    } else {
      literal.clear();
    }
    if (literal.size() > needle_.size()) needle_ = literal;
  }
}

bool PathPattern::matches(std::string_view path) const {
  switch (kind_) {
    case Kind::exact: return path == prefix_;
    case Kind::prefix: return path.starts_with(prefix_);
    case Kind::suffix:
      return path.ends_with(suffix_) || (suffix_.starts_with('/') && path == std::string_view(suffix_).substr(1));
    case Kind::glob:
      return path.starts_with(prefix_) && path.ends_with(suffix_) &&
             (needle_.empty() || path.find(needle_) != std::string_view::npos) && run(path);
  }
  return false;
}

bool PathPattern::accepts(const Step& step, char32_t c) const {
  switch (step.op) {
    case Op::character: return c == step.value;
    case Op::any_but_slash:
    case Op::run_but_slash: return c != '/';
    case Op::run:
    case Op::run_then_slash: return c != '\n';
    case Op::set:
      return std::any_of(step.ranges.begin(), step.ranges.end(),
                         [&](const Range& r) { return c >= r.first && c <= r.second; }) != step.negated;
    case Op::beginning: return false;
  }
  return false;
}

/// Makes a step active, and those behind it that can be passed without a character.
void PathPattern::enter(std::vector<bool>& active, std::size_t step, bool at_start) const {
  for (;; ++step) {
    active[step] = true;
    if (step == steps_.size()) return;
    const Op op = steps_[step].op;
    const bool passable =
        op == Op::run || op == Op::run_but_slash || op == Op::run_then_slash || (op == Op::beginning && at_start);
    if (!passable) return;
  }
}

bool PathPattern::run(std::string_view path) const {
  std::vector<bool> now(steps_.size() + 1);
  std::vector<bool> next(steps_.size() + 1);
  // `(.*/)?` can be passed before its first character only; inside it, a slash is what leads on.
  std::vector<bool> inside(steps_.size() + 1);
  std::vector<bool> next_inside(steps_.size() + 1);
  enter(now, 0, true);
  for (std::size_t at = 0; at < path.size();) {
    const DecodedChar c = decode_char(path, at);
    at += c.length;
    std::fill(next.begin(), next.end(), false);
    std::fill(next_inside.begin(), next_inside.end(), false);
    bool alive = false;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      if (!now[i] && !inside[i]) continue;
      const Step& step = steps_[i];
      if (!accepts(step, c.value)) continue;
      alive = true;
      if (step.op == Op::run_then_slash) {
        next_inside[i] = true;
        if (c.value == '/') enter(next, i + 1, false);
      } else {
        enter(next, step.op == Op::run || step.op == Op::run_but_slash ? i : i + 1, false);
      }
    }
    if (!alive) return false;
    now.swap(next);
    inside.swap(next_inside);
  }
  return now.back();
}

}  // namespace gantry::dockerfile
