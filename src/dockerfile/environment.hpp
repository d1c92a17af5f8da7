#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace gantry::dockerfile {

/// All variables together are bounded: a few lines could otherwise double them until memory ends. Linux gives a process
/// less than this.
inline constexpr std::size_t kMaxEnvironment = 8 * 1024 * 1024;

/// Variables in the order of their first definition. Names are case-sensitive.
class Environment {
 public:
  Environment() = default;
  /// From `NAME=value` (a bare `NAME` is empty); a later entry wins.
  static Environment from_list(const std::vector<std::string>& list);

  /// nullptr if it is not set. Valid until the next change.
  const std::string* find(std::string_view name) const;
  /// Throws Error(invalid_argument) if they would become larger than kMaxEnvironment.
  void set(std::string_view name, std::string value);
  bool empty() const noexcept { return entries_.empty(); }

  std::vector<std::string> names() const;
  /// `NAME=value` each.
  std::vector<std::string> list() const;

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::size_t size_ = 0;  // bytes of names and values
  std::vector<std::pair<std::string, std::string>> entries_;
  std::unordered_map<std::string, std::size_t, Hash, std::equal_to<>> index_;
};

}  // namespace gantry::dockerfile
