#pragma once

#include <bitset>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace gantry {

/// Regular expressions from clients, as Go's regexp reads them: no back-references, matching time linear in the text.
/// (std::regex recurses and backtracks, so that a hostile pattern stops the event loop.)
///
/// Knows literals, ".", classes, \d \w \s and their opposites, \b, groups, "|", "*", "+", "?", "{m,n}", "^", "$" and a
/// leading "(?i)". Works on bytes.
class Regex {
 public:
  /// nullopt if the pattern is malformed, uses something else, or is too large.
  static std::optional<Regex> compile(std::string_view pattern);
  /// Does the expression occur anywhere in `text`?
  bool found_in(std::string_view text) const;

 private:
  friend class RegexCompiler;
  enum class Op { set, split, jump, begin, end, word_edge, no_word_edge, match };
  struct Instruction {
    Op op;
    std::size_t a = 0;  // set: its number; split, jump: where to go
    std::size_t b = 0;  // split: the other way
  };
  void add_thread(std::vector<std::size_t>& threads, std::vector<std::size_t>& marks, std::size_t step,
                  std::size_t start, std::string_view text, std::size_t at) const;

  std::vector<Instruction> program_;
  std::vector<std::bitset<256>> sets_;
};

}  // namespace gantry
