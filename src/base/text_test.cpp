#include "base/text.hpp"

#include <gtest/gtest.h>

namespace gantry {
namespace {

TEST(Text, SplitsKeepingEmptyParts) {
  EXPECT_EQ(split("a,,b", ','), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(split("", ','), (std::vector<std::string>{""}));
  EXPECT_EQ(split_once("k=v=w", '=').second, "v=w");
}

TEST(Text, ReadsSizesAsDockerDoes) {
  EXPECT_EQ(parse_size("10m"), 10 << 20);
  EXPECT_EQ(parse_size("1.5GB"), 3LL << 29);
  EXPECT_EQ(parse_size("64"), 64);
  EXPECT_EQ(parse_size("2KiB"), 2048);
  EXPECT_FALSE(parse_size("10x"));
  EXPECT_FALSE(parse_size(""));
  EXPECT_FALSE(parse_size("-1"));
  EXPECT_FALSE(parse_size("99999999999p"));
}

TEST(Text, QuotesAsGoDoes) {
  EXPECT_EQ(quote("a\"b\\c\n"), R"("a\"b\\c\n")");
  EXPECT_EQ(quote("caf\xc3\xa9\xff\x01"), "\"caf\xc3\xa9\\xff\\x01\"");
}

TEST(Text, TellsUtf8FromOtherBytes) {
  EXPECT_TRUE(is_valid_utf8("na\xc3\xafve \xf0\x9f\x90\xb3"));
  EXPECT_FALSE(is_valid_utf8("\xc0\xaf"));      // overlong
  EXPECT_FALSE(is_valid_utf8("\xed\xa0\x80"));  // surrogate
  EXPECT_FALSE(is_valid_utf8("\xe2\x82"));      // cut off
}

TEST(Text, DecodesBothBase64AlphabetsWithAndWithoutPadding) {
  const std::string bytes("\xfb\xff\x00z", 4);
  EXPECT_EQ(base64_encode(bytes), "+/8Aeg==");
  EXPECT_EQ(base64_decode("+/8Aeg=="), bytes);
  EXPECT_EQ(base64_decode("-_8Aeg"), bytes);
  EXPECT_FALSE(base64_decode("a"));
  EXPECT_FALSE(base64_decode("a b="));
}

TEST(Text, ReadsQueryFlagsAsDockerDoes) {
  for (const char* no : {"", "0", " No", "FALSE", "none"}) EXPECT_FALSE(parse_query_bool(no)) << no;
  for (const char* yes : {"1", "true", "x"}) EXPECT_TRUE(parse_query_bool(yes)) << yes;
}

TEST(Text, SuggestsAWordThatWasProbablyMeant) {
  const std::vector<std::string> known{"live-restore", "log-driver", "dns"};
  EXPECT_EQ(closest_word("live-restor", known), "live-restore");
  EXPECT_EQ(closest_word("banana", known), std::nullopt);
}

TEST(Text, PrintsSizesAsDockerDoes) {
  EXPECT_EQ(render_human_size(0), "0B");
  EXPECT_EQ(render_human_size(1234567), "1.235MB");
}

TEST(Text, ReplacesEachByteThatIsNoUtf8) {
  EXPECT_EQ(replace_invalid_utf8("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(replace_invalid_utf8("a\xff"
                                 "b\xc3"),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd");
}

}  // namespace
}  // namespace gantry
