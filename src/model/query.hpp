#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/filters.hpp"

namespace gantry::model {

/// The parameters after the "?" of a request, decoded, in the order given. Keys may repeat.
class Query {
 public:
  /// Throws invalid_argument for a broken percent escape or a semicolon, as Go's parser does.
  static Query parse(std::string_view raw);

  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// The first value, or `fallback` if the parameter is absent.
  std::string get(std::string_view name, std::string_view fallback = {}) const;
  /// Every value of a repeated parameter.
  std::vector<std::string> all(std::string_view name) const;
  /// Docker's reading of a flag (see parse_query_bool); `absent` if the parameter is not there at all.
  bool flag(std::string_view name, bool absent = false) const;
  /// nullopt if absent or empty. Throws invalid_argument if it is not a decimal integer.
  std::optional<std::int64_t> integer(std::string_view name) const;
  /// The `filters` parameter: `{"key":{"value":true}}` or the older `{"key":["value"]}`.
  /// Throws invalid_argument `invalid filter` if it is neither.
  Filters filters(std::string_view name = "filters") const;

 private:
  const std::string* find(std::string_view name) const;
  std::vector<std::pair<std::string, std::string>> items_;
};

/// Decodes %xx, and "+" as a space if `plus_is_space`. nullopt for a broken escape.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);

}  // namespace gantry::model
