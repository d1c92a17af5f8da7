#include "image/prune_filter.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::image {
namespace {

/// Go's duration: "1h30m", "500ms", "1.5h".
std::optional<std::chrono::nanoseconds> parse_go_duration(std::string_view text) {
  static const std::map<std::string, double, std::less<>> kUnits = {{"ns", 1},  {"us", 1e3}, {"ms", 1e6},
                                                                    {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  if (text.empty()) return std::nullopt;
  double total = 0;
  while (!text.empty()) {
    const std::size_t digits = text.find_first_not_of("0123456789.");
    if (digits == 0 || digits == std::string_view::npos || digits > 18) return std::nullopt;
    std::size_t unit_end = text.find_first_of("0123456789.", digits);
    if (unit_end == std::string_view::npos) unit_end = text.size();
    const auto unit = kUnits.find(text.substr(digits, unit_end - digits));
    if (unit == kUnits.end()) return std::nullopt;
    total += std::strtod(std::string(text.substr(0, digits)).c_str(), nullptr) * unit->second;
    text.remove_prefix(unit_end);
  }
  if (total > 9.2e18) return std::nullopt;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(total));
}

}  // namespace

bool matches_label_filters(const Filters& filters, const Image& image) {
  static const Filters::Labels kNone;
  const Filters::Labels& labels = image.config.Labels ? *image.config.Labels : kNone;
  if (filters.has("label") && !filters.labels_match("label", labels)) return false;
  return !filters.has("label!") || !filters.labels_match("label!", labels);
}

std::optional<Timestamp> read_until(const Filters& filters) {
  if (!filters.has("until")) return std::nullopt;
  const auto& values = filters.values("until");
  if (values.size() != 1) throw Error(Errc::invalid_argument, "more than one until filter specified");
  const std::string& text = *values.begin();
  if (const auto duration = parse_go_duration(text)) return now() - *duration;
  if (const auto seconds = parse_unix_seconds(text)) return seconds;
  for (const char* rest : {"", "Z", ":00Z", "T00:00:00Z"})
    if (const auto time = parse_rfc3339(text + rest)) return time;
  throw Error(Errc::invalid_argument, fmt::format("failed to parse value as time or duration: {}", quote(text)));
}

}  // namespace gantry::image
