#include "dockerfile/environment.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::dockerfile {

Environment Environment::from_list(const std::vector<std::string>& list) {
  Environment environment;
  for (const std::string& entry : list) {
    const auto [name, value] = split_once(entry, '=');
    environment.set(name, std::string(value));
  }
  return environment;
}

const std::string* Environment::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &entries_[at->second].second;
}

void Environment::set(std::string_view name, std::string value) {
  const auto at = index_.find(name);
  const std::size_t before = at == index_.end() ? 0 : name.size() + entries_[at->second].second.size();
  const std::size_t size = size_ - before + name.size() + value.size();
  if (size > kMaxEnvironment) throw Error(Errc::invalid_argument, "the variables are too large");
  size_ = size;
  if (at != index_.end()) {
    entries_[at->second].second = std::move(value);
    return;
  }
  index_.emplace(std::string(name), entries_.size());
  entries_.emplace_back(std::string(name), std::move(value));
}

std::vector<std::string> Environment::names() const {
  std::vector<std::string> names;
  names.reserve(entries_.size());
  for (const auto& [name, value] : entries_) names.push_back(name);
  return names;
}

std::vector<std::string> Environment::list() const {
  std::vector<std::string> list;
  list.reserve(entries_.size());
  for (const auto& [name, value] : entries_) list.push_back(name + "=" + value);
  return list;
}

}  // namespace gantry::dockerfile
