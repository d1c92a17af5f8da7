#include "base/time_filter.hpp"

#include <cmath>
#include <string>

namespace gantry {
namespace {

/// The unit at the front of `text`, in nanoseconds, and how many characters it takes; 0: none.
std::pair<double, std::size_t> leading_unit(std::string_view text) {
  if (text.starts_with("ns")) return {1, 2};
  if (text.starts_with("us")) return {1e3, 2};
  if (text.starts_with("\u00b5s") || text.starts_with("\u03bcs")) return {1e3, 3};
  if (text.starts_with("ms")) return {1e6, 2};
  if (text.starts_with("s")) return {1e9, 1};
  if (text.starts_with("m")) return {60e9, 1};
  if (text.starts_with("h")) return {3600e9, 1};
  return {0, 0};
}

std::optional<Timestamp> parse_date_and_time(std::string_view text) {
  if (const auto whole = parse_rfc3339(text)) return whole;
  std::string padded(text);
  if (padded.size() == 10) padded += "T00:00:00Z";        // 2006-01-02
  else if (padded.size() == 16) padded += ":00Z";         // 2006-01-02T15:04
  else padded += "Z";                                     // 2006-01-02T15:04:05
  return parse_rfc3339(padded);
}

}  // namespace

std::optional<std::chrono::nanoseconds> parse_go_duration(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text == "0") return std::chrono::nanoseconds(0);
  if (text.empty()) return std::nullopt;
  double total = 0;
  while (!text.empty()) {
    const std::size_t digits = text.find_first_not_of("0123456789.");
    if (digits == 0 || digits == std::string_view::npos) return std::nullopt;
    const std::string number(text.substr(0, digits));
    if (number == "." || number.find('.') != number.rfind('.') || number.size() > 20) return std::nullopt;
    text.remove_prefix(digits);
    const auto [nanoseconds, length] = leading_unit(text);
    if (length == 0) return std::nullopt;
    total += std::stod(number) * nanoseconds;
    text.remove_prefix(length);
  }
  if (total > 9.2e18) return std::nullopt;
  const auto count = static_cast<std::int64_t>(std::llround(total));
  return std::chrono::nanoseconds(negative ? -count : count);
}

std::optional<Timestamp> parse_time_filter(std::string_view text, Timestamp at) {
  if (const auto age = parse_go_duration(text); age && text != "0") return at - *age;
  if (const auto seconds = parse_unix_seconds(text)) return seconds;
  return parse_date_and_time(text);
}

}  // namespace gantry
