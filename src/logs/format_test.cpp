#include "logs/format.hpp"

#include <random>

#include <gtest/gtest.h>

namespace gantry::logs {
namespace {

std::string escaped(std::string_view text) {
  std::string out(text.size() * kWorstEscape + 32, '\0');
  out.resize(static_cast<std::size_t>(write_escaped(out.data(), text.data(), text.size()) - out.data()));
  return out;
}

TEST(Format, EscapesAsGoDoes) {
  EXPECT_EQ(escaped("plain"), "plain");
  EXPECT_EQ(escaped("a\"b\\c"), R"(a\"b\\c)");
  EXPECT_EQ(escaped("\n\r\t\x01\x1f\x7f"), "\\n\\r\\u0009\\u0001\\u001f\x7f");
  EXPECT_EQ(escaped("<a href=\"x\">&amp;</a>"), R"(\u003ca href=\"x\"\u003e\u0026amp;\u003c/a\u003e)");
  EXPECT_EQ(escaped("\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa"), "\\u2028\\u2029\xe2\x80\xaa");
  EXPECT_EQ(escaped("gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"), "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80");
}

TEST(Format, ReplacesEachInvalidByte) {
  EXPECT_EQ(escaped("\xff"), "\\ufffd");
  EXPECT_EQ(escaped("a\xc3(\xe2\x82z"), "a\\ufffd(\\ufffd\\ufffdz");
  EXPECT_EQ(escaped("\xed\xa0\x80"), "\\ufffd\\ufffd\\ufffd");  // a surrogate
  EXPECT_EQ(escaped("\xc0\x80"), "\\ufffd\\ufffd");             // overlong
  EXPECT_EQ(escaped("\xf4\x90\x80\x80"), "\\ufffd\\ufffd\\ufffd\\ufffd");
}

TEST(Format, EscapesTheSameAtEveryOffsetOfABlock) {
  for (std::size_t size = 0; size < 130; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      std::string text(size, 'x');
      text[at] = '<';
      std::string expected(size, 'x');
      expected.replace(at, 1, "\\u003c");
      ASSERT_EQ(escaped(text), expected) << size << " " << at;
    }
  }
}

TEST(Format, WritesTheLineThatDockerWrites) {
  const Timestamp time = *parse_rfc3339("2026-11-22T13:29:07.4144Z");
  EXPECT_EQ(encode_line("hi\n", Stream::out, time),
            "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T13:29:07.4144Z\"}\n");
  EXPECT_EQ(encode_line("x", Stream::err, time, R"({"a":"b"})"),
            "{\"log\":\"x\",\"stream\":\"stderr\",\"attrs\":{\"a\":\"b\"},\"time\":\"2026-11-22T13:29:07.4144Z\"}\n");
}

TEST(Format, DecodesWhatItEncodes) {
  std::mt19937 random(3);
  std::string scratch;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    const std::size_t length = random() % 300;
    while (text.size() < length) {
      constexpr std::string_view kPieces[] = {"a",    "\n", "\"", "\\", "<", "\x02", "\xc3\xbc", "\xf0\x9f\x98\x80",
                                              "word "};
      text += kPieces[random() % std::size(kPieces)];
    }
    std::string line = encode_line(text, Stream::err, now());
    ASSERT_EQ(line.back(), '\n');
    line.pop_back();
    ASSERT_EQ(line.find('\n'), std::string::npos);
    Entry entry;
    ASSERT_TRUE(decode_line(line, entry, scratch)) << line;
    ASSERT_EQ(entry.text, text);
    ASSERT_EQ(entry.stream, Stream::err);
  }
}

TEST(Format, DecodesOtherWritersOfTheSameFormat) {
  Entry entry;
  std::string scratch;
  ASSERT_TRUE(decode_line(R"( { "time" : "2026-01-01T00:00:00Z", "x":[1,{"y":"}"}], "log":"\u00e9\ud83d\ude00\/\t" } )",
                          entry, scratch));
  EXPECT_EQ(entry.text, "\xc3\xa9\xf0\x9f\x98\x80/\t");
  EXPECT_EQ(entry.stream, Stream::out);
  ASSERT_TRUE(decode_line(R"({"log":"a","attrs":{"k":"v"},"stream":"stderr","time":"t"})", entry, scratch));
  EXPECT_EQ(entry.attrs, R"({"k":"v"})");
}

TEST(Format, RefusesTornAndForeignLines) {
  const std::string whole = R"({"log":"a\u003cb\n","stream":"stdout","time":"2026-11-22T13:29:07Z"})";
  Entry entry;
  std::string scratch;
  EXPECT_TRUE(decode_line(whole, entry, scratch));
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(decode_line(std::string_view(whole).substr(0, size), entry, scratch)) << size;
  for (const char* line : {"", "garbage", "[]", "{}", R"({"log":"\x","time":"t"})", R"({"log":"\ud8)"})
    EXPECT_FALSE(decode_line(line, entry, scratch)) << line;
}

}  // namespace
}  // namespace gantry::logs
