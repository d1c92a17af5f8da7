#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "base/time.hpp"

namespace gantry {

/// Go's durations: "1h30m", "2.5s", "300ms", "-5m", "0". nullopt if it is not one or does not fit.
std::optional<std::chrono::nanoseconds> parse_go_duration(std::string_view text);

/// A moment as the `until` filters take it: a Go duration before `at`, RFC 3339 (also without offset or seconds, or a
/// date alone; UTC then), or seconds[.fraction] since 1970. nullopt if it is none of them.
std::optional<Timestamp> parse_time_filter(std::string_view text, Timestamp at);

}  // namespace gantry
