#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace gantry::buildops {

/// What --chmod asks for: nothing, bits, or the symbolic language of chmod(1).
class ModeChange {
 public:
  ModeChange() = default;
  /// 0 to 07777.
  static ModeChange bits(mode_t mode);
  /// Octal digits, or "u=rwX,go-w". Throws invalid_argument: `invalid chmod parameter: '…'. it should be octal string
  /// and between 0 and 07777`.
  static ModeChange parse(std::string_view text);

  bool empty() const noexcept { return !bits_ && clauses_.empty(); }
  const std::optional<mode_t>& fixed_bits() const noexcept { return bits_; }
  /// The permission and set-id bits of something that has `mode` now (with its type bits, which X looks at).
  mode_t apply(mode_t mode) const;

 private:
  struct Clause {
    mode_t who = 0;          // of 04700, 02070, 00007 and 01000
    char operation = '=';    // '+', '-' or '='
    mode_t permissions = 0;  // for all of u, g and o at once
    bool conditional_execute = false;
    char copy_from = 0;  // 'u', 'g' or 'o': their present bits instead
  };
  static std::optional<std::vector<Clause>> parse_clauses(std::string_view text);
  std::optional<mode_t> bits_;
  std::vector<Clause> clauses_;
};

}  // namespace gantry::buildops
