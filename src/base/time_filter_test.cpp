#include "base/time_filter.hpp"

#include <gtest/gtest.h>

namespace gantry {
namespace {

using namespace std::chrono_literals;

TEST(TimeFilter, ReadsGoDurations) {
  EXPECT_EQ(parse_go_duration("1h30m"), 90min);
  EXPECT_EQ(parse_go_duration("2.5s"), 2500ms);
  EXPECT_EQ(parse_go_duration("300ms"), 300ms);
  EXPECT_EQ(parse_go_duration("-5m"), -5min);
  EXPECT_EQ(parse_go_duration("0"), 0ns);
  for (const char* bad : {"", "5", "h", "1x", "1..5s", ".s", "99999999999999999999h"})
    EXPECT_EQ(parse_go_duration(bad), std::nullopt) << bad;
}

TEST(TimeFilter, ReadsDurationsDatesAndSeconds) {
  const Timestamp at = *parse_rfc3339("2026-01-02T03:04:05Z");
  EXPECT_EQ(parse_time_filter("24h", at), *parse_rfc3339("2026-01-01T03:04:05Z"));
  EXPECT_EQ(parse_time_filter("2026-01-01", at), *parse_rfc3339("2026-01-01T00:00:00Z"));
  EXPECT_EQ(parse_time_filter("2026-01-01T10:11", at), *parse_rfc3339("2026-01-01T10:11:00Z"));
  EXPECT_EQ(parse_time_filter("2026-01-01T10:11:12", at), *parse_rfc3339("2026-01-01T10:11:12Z"));
  EXPECT_EQ(parse_time_filter("2026-01-01T10:11:12+01:00", at), *parse_rfc3339("2026-01-01T09:11:12Z"));
  EXPECT_EQ(parse_time_filter("1500000000.5", at), parse_unix_seconds("1500000000.5"));
  for (const char* bad : {"", "yesterday", "2026-13-01", "1h x"})
    EXPECT_EQ(parse_time_filter(bad, at), std::nullopt) << bad;
}

}  // namespace
}  // namespace gantry
