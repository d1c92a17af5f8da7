#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::dockerfile {

/// The flags of one instruction, checked against what it knows. Throws Error(invalid_argument) in BuildKit's words:
/// `unknown flag: --form (did you mean from?)`, `duplicate flag specified: chown`, `missing a value on flag: from`,
/// `expecting boolean value for flag link, not: x`.
class Flags {
 public:
  enum class Type { boolean, text, list };
  struct Known {
    std::string_view name;
    Type type;
  };
  Flags(const std::vector<std::string>& written, const std::vector<Known>& known);

  /// "" if it was not given.
  std::string text(std::string_view name) const;
  std::vector<std::string> list(std::string_view name) const;
  std::optional<bool> boolean(std::string_view name) const;
  /// Names in the order of their first use.
  const std::vector<std::string>& used() const noexcept { return used_; }

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> used_;
};

}  // namespace gantry::dockerfile
