#include "base/filters.hpp"

#include "base/error.hpp"
#include "base/regex.hpp"
#include "base/text.hpp"

namespace gantry {

const std::set<std::string>& Filters::values(const std::string& key) const {
  static const std::set<std::string> kNone;
  const auto it = values_.find(key);
  return it == values_.end() ? kNone : it->second;
}

void Filters::require_known(const std::set<std::string>& known) const {
  for (const auto& [key, unused] : values_)
    if (!known.contains(key)) throw Error(Errc::invalid_argument, "invalid filter '" + key + "'");
}

bool Filters::exact_match(const std::string& key, std::string_view source) const {
  const auto& wanted = values(key);
  return wanted.empty() || wanted.contains(std::string(source));
}

bool Filters::prefix_match(const std::string& key, std::string_view source) const {
  const auto& wanted = values(key);
  if (wanted.empty()) return true;
  for (const std::string& value : wanted)
    if (source.starts_with(value)) return true;
  return false;
}

bool Filters::regex_match(const std::string& key, std::string_view source) const {
  if (exact_match(key, source)) return true;
  for (const std::string& value : values(key)) {
    const auto regex = Regex::compile(value);
    if (regex && regex->found_in(source)) return true;
  }
  return false;
}

bool Filters::labels_match(const std::string& key, const Labels& labels) const {
  for (const std::string& value : values(key)) {
    const auto [name, wanted] = split_once(value, '=');
    const auto label = labels.find(std::string(name));
    if (label == labels.end()) return false;
    if (name.size() < value.size() && label->second != wanted) return false;
  }
  return true;
}

std::optional<bool> Filters::flag(const std::string& key) const {
  const auto& given = values(key);
  if (given.empty()) return std::nullopt;
  const bool is_true = given.contains("1") || given.contains("true");
  const bool is_false = given.contains("0") || given.contains("false");
  if (given.size() != 1 || is_true == is_false) {
    const std::vector<std::string> list(given.begin(), given.end());
    throw Error(Errc::invalid_argument, "invalid filter '" + key + "=[" + join(list, " ") + "]'");
  }
  return is_true;
}

}  // namespace gantry
