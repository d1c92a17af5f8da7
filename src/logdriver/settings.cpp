#include "logdriver/settings.hpp"

#include "base/text.hpp"
#include "logs/options.hpp"

namespace gantry::logdriver {

constexpr std::string_view kExtra = "extra.";

Settings Settings::parse(const std::vector<std::string>& pairs) {
  Settings settings;
  for (const std::string& pair : pairs) {
    const auto [key, value] = split_once(pair, '=');
    if (!key.empty()) settings.values_[std::string(key)] = value;
  }
  return settings;
}

std::string Settings::get(const std::string& key) const { return get(key, ""); }

std::string Settings::get(const std::string& key, std::string_view fallback) const {
  const auto it = values_.find(key);
  return it == values_.end() || it->second.empty() ? std::string(fallback) : it->second;
}

long long Settings::number(const std::string& key, long long fallback) const {
  return parse_int(get(key)).value_or(fallback);
}

bool Settings::flag(const std::string& key) const {
  const std::string text = get(key);
  return !text.empty() && logs::parse_bool(text);
}

std::map<std::string, std::string> Settings::extras() const {
  std::map<std::string, std::string> out;
  for (auto it = values_.lower_bound(std::string(kExtra)); it != values_.end() && it->first.starts_with(kExtra); ++it)
    out[it->first.substr(kExtra.size())] = it->second;
  return out;
}

}  // namespace gantry::logdriver
