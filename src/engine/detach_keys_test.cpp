#include "engine/detach_keys.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::engine {
namespace {

TEST(DetachKeys, TheDefaultIsCtrlPCtrlQ) { EXPECT_EQ(parse_detach_keys(""), "\x10\x11"); }

TEST(DetachKeys, ReadsCharactersAndControlKeys) {
  EXPECT_EQ(parse_detach_keys("ctrl-a,b,ctrl-["),
            "\x01"
            "b\x1b");
  EXPECT_EQ(parse_detach_keys("ctrl-@"), std::string(1, '\0'));
}

TEST(DetachKeys, RefusesWhatIsNoKey) {
  for (const char* bad : {"ctrl-1", "ab", "a,", "ctrl-", "ctrl-ab"}) {
    try {
      (void)parse_detach_keys(bad);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::invalid_argument);
      EXPECT_EQ(e.message(), "Invalid detach keys (" + std::string(bad) + ") provided");
    }
  }
}

TEST(DetachScanner, FindsTheSequenceAcrossReadsAndSwallowsIt) {
  DetachScanner scanner("\x10\x11");
  auto result = scanner.feed("ls\n\x10");
  EXPECT_EQ(result.forward, "ls\n");
  EXPECT_FALSE(result.detached);
  result = scanner.feed("\x11");
  EXPECT_EQ(result.forward, "");
  EXPECT_TRUE(result.detached);
}

TEST(DetachScanner, ForwardsABeginningThatGoesOnDifferently) {
  DetachScanner scanner("\x10\x11");
  EXPECT_EQ(scanner.feed("a\x10").forward, "a");
  EXPECT_EQ(scanner.feed("b").forward,
            "\x10"
            "b");
}

TEST(DetachScanner, SeesASequenceThatBeginsInsideAFailedOne) {
  DetachScanner twice("\x10\x11");
  const auto result = twice.feed("\x10\x10\x11");
  EXPECT_EQ(result.forward, "\x10");
  EXPECT_TRUE(result.detached);

  DetachScanner overlapping("aab");
  const auto found = overlapping.feed("aaab");
  EXPECT_EQ(found.forward, "a");
  EXPECT_TRUE(found.detached);
}

TEST(DetachScanner, AnEmptySequenceIsNeverFound) {
  DetachScanner scanner("");
  const auto result = scanner.feed("\x10\x11");
  EXPECT_EQ(result.forward, "\x10\x11");
  EXPECT_FALSE(result.detached);
}

}  // namespace
}  // namespace gantry::engine
