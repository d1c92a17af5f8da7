#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace gantry::dockerfile {

/// Variables in the order of their first definition. Names are case-sensitive.
class Environment {
 public:
  Environment() = default;
  /// From `NAME=value` (a bare `NAME` is empty); a later entry wins.
  static Environment from_list(const std::vector<std::string>& list);

  /// nullptr if it is not set. Valid until the next change.
  const std::string* find(std::string_view name) const;
  void set(std::string_view name, std::string value);
  bool empty() const noexcept { return entries_.empty(); }

  std::vector<std::string> names() const;
  /// `NAME=value` each.
  std::vector<std::string> list() const;

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<std::pair<std::string, std::string>> entries_;
  std::unordered_map<std::string, std::size_t, Hash, std::equal_to<>> index_;
};

}  // namespace gantry::dockerfile
