#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gantry::dockerfile {

/// One path pattern of a `.dockerignore`, compiled. `*` and `?` stop at `/`; `**` does not: `**/x` is x at any depth
/// (also none), `x/**` everything below x; `[a-z]`, `[^a]` classes; `\c` the character c. Works on UTF-8 characters.
/// Time of a match: the path's length times the pattern's at most, usually a look at its literal beginning and end.
class PathPattern {
 public:
  enum class Kind {
    exact,   // no wildcard
    prefix,  // literal and `**` at the end
    suffix,  // `**` and a literal
    glob,
  };

  PathPattern() = default;
  /// Throws Error(invalid_argument) `syntax error in pattern`.
  explicit PathPattern(std::string_view text);

  bool matches(std::string_view path) const;
  Kind kind() const noexcept { return kind_; }
  /// What every match begins with: up to the first wildcard.
  const std::string& literal_prefix() const noexcept { return prefix_; }
  /// Kind suffix: what follows the `**`.
  const std::string& literal_suffix() const noexcept { return suffix_; }

 private:
  enum class Op : std::uint8_t { character, any_but_slash, run_but_slash, run, run_then_slash, set, beginning };
  struct Step {
    Op op = Op::character;
    bool negated = false;                               // set
    char32_t value = 0;                                 // character
    std::vector<std::pair<char32_t, char32_t>> ranges;  // set
  };
  void add_set(std::u32string_view text, std::size_t& at);
  void add_literals();
  bool accepts(const Step& step, char32_t c) const;
  void enter(std::vector<bool>& active, std::size_t step, bool at_start) const;
  bool run(std::string_view path) const;

  Kind kind_ = Kind::exact;
  std::string prefix_;
  std::string suffix_;
  std::string needle_;  // glob: the longest literal between two wildcards; every match holds it
  std::vector<Step> steps_;
};

/// Go's filepath.Match syntax: classes closed, no escape at the end.
bool is_valid_glob(std::string_view pattern);

}  // namespace gantry::dockerfile
