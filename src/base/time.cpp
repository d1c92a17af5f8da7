#include "base/time.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>

#include <fmt/format.h>

namespace gantry {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

struct Split {
  std::tm utc{};
  long nanos = 0;
};

Split split(Timestamp t) {
  auto whole = std::chrono::floor<seconds>(t);
  Split s;
  std::time_t secs = static_cast<std::time_t>(whole.time_since_epoch().count());
  gmtime_r(&secs, &s.utc);
  s.nanos = static_cast<long>((t - whole).count());
  return s;
}

std::string render_date(const std::tm& tm) {
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                     tm.tm_min, tm.tm_sec);
}

/// Reads exactly `digits` decimal digits at `pos` and advances.
std::optional<int> digits_at(std::string_view text, std::size_t& pos, std::size_t digits) {
  if (pos + digits > text.size()) return std::nullopt;
  int value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    char c = text[pos + i];
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  pos += digits;
  return value;
}

bool skip(std::string_view text, std::size_t& pos, char c) {
  if (pos >= text.size() || text[pos] != c) return false;
  ++pos;
  return true;
}

/// Reads a fraction's digits as nanoseconds; digits past the ninth are dropped.
std::optional<long> fraction_at(std::string_view text, std::size_t& pos) {
  long nanos = 0;
  long scale = 100'000'000;
  std::size_t start = pos;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    nanos += (text[pos++] - '0') * scale;
    scale /= 10;
  }
  if (pos == start) return std::nullopt;
  return nanos;
}

std::optional<seconds> offset_at(std::string_view text, std::size_t& pos) {
  if (skip(text, pos, 'Z') || skip(text, pos, 'z')) return seconds(0);
  int sign = 0;
  if (skip(text, pos, '+')) sign = 1;
  else if (skip(text, pos, '-')) sign = -1;
  else return std::nullopt;
  auto hours = digits_at(text, pos, 2);
  if (!hours || !skip(text, pos, ':')) return std::nullopt;
  auto minutes = digits_at(text, pos, 2);
  if (!minutes) return std::nullopt;
  return seconds(sign * (*hours * 3600 + *minutes * 60));
}

}  // namespace

Timestamp now() { return std::chrono::time_point_cast<nanoseconds>(std::chrono::system_clock::now()); }

std::string render_rfc3339_nano(Timestamp t) {
  if (t == Timestamp{}) return std::string(kZeroTime);
  Split s = split(t);
  std::string out = render_date(s.utc);
  if (s.nanos != 0) {
    std::string fraction = fmt::format("{:09}", s.nanos);
    fraction.erase(fraction.find_last_not_of('0') + 1);
    out += '.' + fraction;
  }
  return out + 'Z';
}

std::string render_rfc3339_fixed(Timestamp t) {
  Split s = split(t);
  return fmt::format("{}.{:09}Z", render_date(s.utc), s.nanos);
}

namespace {

constexpr long long kMaxSeconds = 9'000'000'000;  // keeps sums inside 64 bits of nanoseconds

}  // namespace

std::optional<Timestamp> parse_rfc3339(std::string_view text) {
  if (text == kZeroTime) return Timestamp{};
  std::size_t pos = 0;
  auto year = digits_at(text, pos, 4);
  if (!year || !skip(text, pos, '-')) return std::nullopt;
  auto month = digits_at(text, pos, 2);
  if (!month || !skip(text, pos, '-')) return std::nullopt;
  auto day = digits_at(text, pos, 2);
  if (!day || !(skip(text, pos, 'T') || skip(text, pos, 't') || skip(text, pos, ' '))) return std::nullopt;
  auto hour = digits_at(text, pos, 2);
  if (!hour || !skip(text, pos, ':')) return std::nullopt;
  auto minute = digits_at(text, pos, 2);
  if (!minute || !skip(text, pos, ':')) return std::nullopt;
  auto second = digits_at(text, pos, 2);
  if (!second) return std::nullopt;
  long nanos = 0;
  if (skip(text, pos, '.')) {
    auto fraction = fraction_at(text, pos);
    if (!fraction) return std::nullopt;
    nanos = *fraction;
  }
  auto offset = offset_at(text, pos);
  if (!offset || pos != text.size()) return std::nullopt;
  if (*month < 1 || *month > 12 || *day < 1 || *day > 31 || *hour > 23 || *minute > 59 || *second > 60)
    return std::nullopt;
  std::tm tm{};
  tm.tm_year = *year - 1900;
  tm.tm_mon = *month - 1;
  tm.tm_mday = *day;
  tm.tm_hour = *hour;
  tm.tm_min = *minute;
  tm.tm_sec = *second;
  // What 64 bits of nanoseconds cannot hold is the nearest year that they can.
  const auto whole = std::clamp<long long>(timegm(&tm), -kMaxSeconds, kMaxSeconds);
  return Timestamp(seconds(whole) - *offset + nanoseconds(nanos));
}

std::optional<Timestamp> parse_unix_seconds(std::string_view text) {
  long long whole = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (error != std::errc{}) return std::nullopt;
  std::size_t pos = static_cast<std::size_t>(end - text.data());
  long nanos = 0;
  if (skip(text, pos, '.')) {
    auto fraction = fraction_at(text, pos);
    if (!fraction) return std::nullopt;
    nanos = *fraction;
  }
  if (pos != text.size()) return std::nullopt;
  if (whole > kMaxSeconds || whole < -kMaxSeconds) return std::nullopt;
  return Timestamp(seconds(whole) + nanoseconds(nanos));
}

std::string render_human_duration(nanoseconds d) {
  const auto secs = std::chrono::duration_cast<seconds>(d).count();
  if (secs < 1) return "Less than a second";
  if (secs == 1) return "1 second";
  if (secs < 60) return fmt::format("{} seconds", secs);
  const auto minutes = secs / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return fmt::format("{} minutes", minutes);
  const auto hours = static_cast<long long>(std::floor(static_cast<double>(secs) / 3600.0 + 0.5));
  if (hours == 1) return "About an hour";
  if (hours < 48) return fmt::format("{} hours", hours);
  if (hours < 24 * 7 * 2) return fmt::format("{} days", hours / 24);
  if (hours < 24 * 30 * 2) return fmt::format("{} weeks", hours / 24 / 7);
  if (hours < 24 * 365 * 2) return fmt::format("{} months", hours / 24 / 30);
  return fmt::format("{} years", static_cast<long long>(static_cast<double>(secs) / 3600.0) / 24 / 365);
}

std::string render_go_duration(nanoseconds d) {
  const auto total = d.count();
  if (total < 0) return "-" + render_go_duration(-d);
  if (total == 0) return "0s";
  const auto with_fraction = [](std::int64_t value, std::int64_t unit, std::string_view name) {
    std::string text = std::to_string(value / unit);
    if (value % unit != 0) {
      std::string digits = std::to_string(unit + value % unit).substr(1);
      digits.erase(digits.find_last_not_of('0') + 1);
      text += "." + digits;
    }
    return text.append(name);
  };
  if (total < 1'000) return std::to_string(total) + "ns";
  if (total < 1'000'000) return with_fraction(total, 1'000, "µs");
  if (total < 1'000'000'000) return with_fraction(total, 1'000'000, "ms");
  const std::int64_t minutes = total / 60'000'000'000;
  std::string text;
  if (minutes >= 60) text = std::to_string(minutes / 60) + "h";
  if (minutes > 0) text += std::to_string(minutes % 60) + "m";
  return text + with_fraction(total % 60'000'000'000, 1'000'000'000, "s");
}

}  // namespace gantry
