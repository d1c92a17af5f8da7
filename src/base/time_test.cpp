#include "base/time.hpp"

#include <gtest/gtest.h>

namespace gantry {
namespace {

using namespace std::chrono_literals;

TEST(Time, PrintsRfc3339WithoutTrailingZeros) {
  const Timestamp t{1763818147s + 414505300ns};
  EXPECT_EQ(render_rfc3339_nano(t), "2025-11-22T13:29:07.4145053Z");
  EXPECT_EQ(render_rfc3339_fixed(t), "2025-11-22T13:29:07.414505300Z");
  EXPECT_EQ(render_rfc3339_nano(Timestamp{1763818147s}), "2025-11-22T13:29:07Z");
  EXPECT_EQ(render_rfc3339_nano(Timestamp{}), kZeroTime);
}

TEST(Time, ReadsWhatItPrintsAndOffsets) {
  const Timestamp t{1763818147s + 414505300ns};
  EXPECT_EQ(parse_rfc3339(render_rfc3339_nano(t)), t);
  EXPECT_EQ(parse_rfc3339("2025-11-22T14:29:07.4145053+01:00"), t);
  EXPECT_EQ(parse_rfc3339(kZeroTime), Timestamp{});
  for (const char* bad : {"", "2025-11-22", "2025-13-22T00:00:00Z", "2025-11-22T00:00:00", "2025-11-22T00:00:00Zx"})
    EXPECT_FALSE(parse_rfc3339(bad)) << bad;
}

TEST(Time, ReadsSecondsWithAFraction) {
  EXPECT_EQ(parse_unix_seconds("12.5"), Timestamp{12s + 500ms});
  EXPECT_EQ(parse_unix_seconds("1"), Timestamp{1s});
  for (const char* bad : {"", "x", "1.", "1.5x", "99999999999999999"}) EXPECT_FALSE(parse_unix_seconds(bad)) << bad;
}

TEST(Time, UsesDockersWordsForDurations) {
  EXPECT_EQ(render_human_duration(500ms), "Less than a second");
  EXPECT_EQ(render_human_duration(1s), "1 second");
  EXPECT_EQ(render_human_duration(59s), "59 seconds");
  EXPECT_EQ(render_human_duration(60s), "About a minute");
  EXPECT_EQ(render_human_duration(45min), "45 minutes");
  EXPECT_EQ(render_human_duration(60min), "About an hour");
  EXPECT_EQ(render_human_duration(47h), "47 hours");
  EXPECT_EQ(render_human_duration(24h * 13), "13 days");
  EXPECT_EQ(render_human_duration(24h * 20), "2 weeks");
  EXPECT_EQ(render_human_duration(24h * 90), "3 months");
  EXPECT_EQ(render_human_duration(24h * 900), "2 years");
}

TEST(Time, KeepsYearsThatDoNotFitInBounds) {
  for (const char* text : {"9999-12-31T23:59:59Z", "2424-01-02T03:04:05Z", "1400-01-01T00:00:00Z"}) {
    const auto time = parse_rfc3339(text);
    ASSERT_TRUE(time) << text;
    EXPECT_EQ(*time > Timestamp{}, text[0] != '1') << text;
  }
}

TEST(Time, WritesDurationsAsGoDoes) {
  EXPECT_EQ(render_go_duration(30s), "30s");
  EXPECT_EQ(render_go_duration(90s), "1m30s");
  EXPECT_EQ(render_go_duration(1h), "1h0m0s");
  EXPECT_EQ(render_go_duration(1500ms), "1.5s");
  EXPECT_EQ(render_go_duration(250ms), "250ms");
  EXPECT_EQ(render_go_duration(1050us), "1.05ms");
  EXPECT_EQ(render_go_duration(0s), "0s");
}

}  // namespace
}  // namespace gantry
