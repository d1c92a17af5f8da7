#include "base/filters.hpp"

#include <chrono>
#include <string>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/regex.hpp"

namespace gantry {
namespace {

bool found(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::compile(pattern);
  return regex && regex->found_in(text);
}

TEST(Regex, FindsWhatGoFinds) {
  EXPECT_TRUE(found("web", "my-web-1"));
  EXPECT_TRUE(found("^/?web$", "/web"));
  EXPECT_FALSE(found("^web$", "webs"));
  EXPECT_TRUE(found("w.b", "wxb"));
  EXPECT_TRUE(found("(a|bc)+d", "xbcad"));
  EXPECT_FALSE(found("^(a|bc)+d$", "xbcad"));
  EXPECT_TRUE(found("[a-c0-9_]{3}", "--b7_--"));
  EXPECT_FALSE(found("^[^a-c]+$", "xyza"));
  EXPECT_TRUE(found("\\d{2,}", "a12"));
  EXPECT_FALSE(found("^\\d{2,3}$", "1234"));
  EXPECT_TRUE(found("", "anything"));
  EXPECT_TRUE(found("a|", "b"));
  EXPECT_TRUE(found("(?i)WEB", "web"));
  EXPECT_TRUE(found("\\bweb\\b", "a web b"));
  EXPECT_FALSE(found("\\bweb\\b", "awebb"));
  EXPECT_TRUE(found("a{,2}", "a{,2}"));
  EXPECT_TRUE(found("[]x]", "]"));
  EXPECT_TRUE(found("x*?y", "xxy"));
}

TEST(Regex, RejectsWhatIsMalformed) {
  for (const char* pattern : {"(", ")", "[a", "a**", "*a", "\\", "(?P<n>a)", "a{3,2}", "[b-a]", "a{1001}"})
    EXPECT_FALSE(Regex::compile(pattern)) << pattern;
  EXPECT_FALSE(Regex::compile(std::string(5000, 'a')));
  EXPECT_FALSE(Regex::compile("((a{1000}){1000}){1000}"));
  EXPECT_FALSE(Regex::compile(std::string(500, '(') + std::string(500, ')')));
}

TEST(Regex, TakesLinearTimeOnHostilePatterns) {
  const std::string text(4000, 'a');
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(found("(a*)*(a*)*(a|aa)+b", text));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Filters, MatchAsDockerDoes) {
  Filters filters;
  filters.add("name", "^web");
  filters.add("id", "abc");
  filters.add("label", "a");
  filters.add("label", "b=1");
  EXPECT_TRUE(filters.regex_match("name", "web-1"));
  EXPECT_FALSE(filters.regex_match("name", "my-web"));
  EXPECT_TRUE(filters.prefix_match("id", "abcdef"));
  EXPECT_FALSE(filters.exact_match("id", "abcdef"));
  EXPECT_TRUE(filters.exact_match("absent", "whatever"));
  EXPECT_TRUE(filters.labels_match("label", {{"a", "x"}, {"b", "1"}}));
  EXPECT_FALSE(filters.labels_match("label", {{"a", "x"}, {"b", "2"}}));
  EXPECT_FALSE(filters.labels_match("label", {}));
}

TEST(Filters, ReadFlagsAndNameWhatIsWrong) {
  Filters filters;
  filters.add("dangling", "true");
  filters.add("odd", "x");
  filters.add("odd", "y");
  EXPECT_EQ(filters.flag("dangling"), true);
  EXPECT_EQ(filters.flag("absent"), std::nullopt);
  try {
    (void)filters.flag("odd");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "invalid filter 'odd=[x y]'");
  }
  EXPECT_THROW(filters.require_known({"dangling"}), Error);
  EXPECT_NO_THROW(filters.require_known({"dangling", "odd"}));
}

}  // namespace
}  // namespace gantry
