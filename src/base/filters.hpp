#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace gantry {

/// The `filters` of a list, prune or events request: for each key the values that a client gave. Values of one key
/// are alternatives, except labels, which must all match; keys must all match. A key that is absent matches all.
/// Source: engine-api.md §1.5.
class Filters {
 public:
  using Labels = std::map<std::string, std::string>;

  Filters() = default;
  explicit Filters(std::map<std::string, std::set<std::string>> values) : values_(std::move(values)) {}

  void add(const std::string& key, std::string value) { values_[key].insert(std::move(value)); }
  bool empty() const noexcept { return values_.empty(); }
  bool has(const std::string& key) const { return values_.contains(key); }
  /// Empty if the key is absent.
  const std::set<std::string>& values(const std::string& key) const;
  const std::map<std::string, std::set<std::string>>& all() const noexcept { return values_; }

  /// Throws invalid_argument `invalid filter 'key'` for a key that is not among `known`.
  void require_known(const std::set<std::string>& known) const;

  /// One of the values equals `source`.
  bool exact_match(const std::string& key, std::string_view source) const;
  /// One of the values is a prefix of `source`.
  bool prefix_match(const std::string& key, std::string_view source) const;
  /// One of the values equals `source`, or is a regular expression (RE2-like subset: ECMAScript) found in it.
  bool regex_match(const std::string& key, std::string_view source) const;
  /// Every `k` is a label and every `k=v` is a label with that value.
  bool labels_match(const std::string& key, const Labels& labels) const;
  /// The truth value of a key such as `dangling`; nullopt if it is absent. Accepts 1, true, 0, false; anything else,
  /// and both at once, throws invalid_argument `invalid filter 'key=[values]'`.
  std::optional<bool> flag(const std::string& key) const;

 private:
  std::map<std::string, std::set<std::string>> values_;
};

}  // namespace gantry
