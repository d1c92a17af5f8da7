#include "base/metrics.hpp"

#include <map>

#include <fmt/format.h>

namespace gantry {

Counter& Metrics::counter(std::string name, std::string help, std::string labels) {
  for (Entry& entry : entries_)
    if (entry.counter && entry.name == name && entry.labels == labels) return *entry.counter;
  entries_.push_back({std::move(name), std::move(help), std::move(labels), std::make_unique<Counter>(), {}});
  return *entries_.back().counter;
}

void Metrics::gauge(std::string name, std::string help, std::function<double()> read, std::string labels) {
  entries_.push_back({std::move(name), std::move(help), std::move(labels), nullptr, std::move(read)});
}

std::string Metrics::render() const {
  // All series of one name must stand together, and in the order of registration.
  std::multimap<std::string_view, const Entry*> sorted;
  for (const Entry& entry : entries_) sorted.emplace(entry.name, &entry);
  std::string out;
  std::string_view last;
  for (const auto& [name, entry] : sorted) {
    if (name != last)
      out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, entry->help, entry->counter ? "counter" : "gauge");
    last = name;
    if (entry->counter) out += fmt::format("{}{} {}\n", name, entry->labels, entry->counter->value());
    else out += fmt::format("{}{} {}\n", name, entry->labels, entry->gauge());
  }
  return out;
}

}  // namespace gantry
