#include "dockerfile/flags.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/suggest.hpp"

namespace gantry::dockerfile {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Errc::invalid_argument, message); }

std::string checked_value(const Flags::Known& flag, bool has_value, std::string_view value) {
  const std::string name(flag.name);
  if (flag.type != Flags::Type::boolean) {
    if (!has_value) refuse("missing a value on flag: " + name);
    return std::string(value);
  }
  if (!has_value) return "true";
  if (value.empty()) refuse("missing a value on flag: " + name);
  std::string lower = to_lower(value);
  if (lower != "true" && lower != "false")
    refuse("expecting boolean value for flag " + name + ", not: " + std::string(value));
  return lower;
}

}  // namespace

Flags::Flags(const std::vector<std::string>& written, const std::vector<Known>& known) {
  for (const std::string& word : written) {
    const std::string_view text = std::string_view(word).substr(2);
    const bool has_value = text.find('=') != std::string_view::npos;
    const auto [name, value] = split_once(text, '=');
    const auto flag = std::find_if(known.begin(), known.end(), [&](const Known& k) { return k.name == name; });
    if (flag == known.end()) {
      std::vector<std::string> names;
      for (const Known& k : known) names.emplace_back(k.name);
      refuse("unknown flag: --" + std::string(name) + did_you_mean(name, names, true));
    }
    std::vector<std::string>& values = values_[std::string(name)];
    if (values.empty()) used_.emplace_back(name);
    if (!values.empty() && flag->type != Type::list) refuse("duplicate flag specified: " + std::string(name));
    values.push_back(checked_value(*flag, has_value, value));
  }
}

std::string Flags::text(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() ? "" : at->second.front();
}

std::vector<std::string> Flags::list(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() ? std::vector<std::string>() : at->second;
}

std::optional<bool> Flags::boolean(std::string_view name) const {
  const auto at = values_.find(name);
  if (at == values_.end()) return std::nullopt;
  return at->second.front() == "true";
}

}  // namespace gantry::dockerfile
