#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace gantry {

/// A moment of the wall clock, in nanoseconds since 1970. `Timestamp{}` (the epoch) stands for "never".
using Timestamp = std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>;

Timestamp now();

/// Docker's form of "never": what Go prints for a zero time.
inline constexpr std::string_view kZeroTime = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with the fraction's trailing zeros cut ("2026-11-22T13:29:07.4144Z"); kZeroTime for "never".
std::string render_rfc3339_nano(Timestamp t);
/// RFC 3339 in UTC with exactly nine digits of fraction, as log lines are stamped.
std::string render_rfc3339_fixed(Timestamp t);
/// Reads RFC 3339 with any fraction and offset. nullopt if it is not one. kZeroTime gives Timestamp{}.
std::optional<Timestamp> parse_rfc3339(std::string_view text);
/// "seconds[.fraction]" since 1970, as clients send `since` and `until`. nullopt if it is not one.
std::optional<Timestamp> parse_unix_seconds(std::string_view text);

/// "Less than a second", "5 seconds", "About a minute" …: Docker's words for a duration.
std::string render_human_duration(std::chrono::nanoseconds d);
/// As Go prints a duration: "30s", "1m30s", "1h0m0s", "1.5s", "250ms".
std::string render_go_duration(std::chrono::nanoseconds d);

}  // namespace gantry
