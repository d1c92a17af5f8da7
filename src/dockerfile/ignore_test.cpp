#include "dockerfile/ignore.hpp"

#include <chrono>

#include <gtest/gtest.h>

#include "dockerfile/test_support.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;

TEST(Ignore, ReadsAFileOfPatterns) {
  EXPECT_EQ(parse_ignore_file("\xEF\xBB\xBF# c\n a \r\n\n /b/ \n!c\n! /d/../e \n #no comment\n./f//g/\n!\n/\n"),
            Words({"a", "b", "!c", "!e", "#no comment", "f/g", "!", "/"}));
  EXPECT_EQ(parse_ignore_file(""), Words());
  EXPECT_NE(refusal([] { parse_ignore_file(std::string(70000, 'x')); }), "");
  EXPECT_NE(refusal([] { parse_ignore_file(std::string(kMaxIgnoreFileSize + 1, '\n')); }), "");
}

TEST(Ignore, RefusesPatternsThatAreNone) {
  EXPECT_EQ(refusal([] { IgnoreMatcher({"!"}); }), "illegal exclusion pattern: \"!\"");
  for (const char* bad : {"[", "[]", "[]a]", "[^]", "[a-", "[-a]", "a[", "a\\"})
    EXPECT_EQ(refusal([&] { IgnoreMatcher({bad}); }), "syntax error in pattern") << bad;
  for (const char* good : {"[^b-d]", "[\\]a]", "[a\\-x]", "]", "!x", " x "})
    EXPECT_EQ(refusal([&] { IgnoreMatcher({good}); }), "") << good;
}

TEST(Ignore, MatchesOnePattern) {
  struct Case {
    const char* pattern;
    const char* path;
    bool excluded;
  };
  const Case cases[] = {
      {"a", "a", true},
      {"a", "b", false},
      {"a", "a/b", true},
      {"a", "x/a", false},
      {"a/b", "a/b/c/d", true},
      {"a/b", "a", false},
      {"*", "a", true},
      {"*", "a/b", true},
      {"*.go", "x.go", true},
      {"*.go", "d/x.go", false},
      {"*/x", "d/x", true},
      {"*/x", "d/e/x", false},
      {"?", "\xC3\xA9", true},
      {"a?c", "a/c", false},
      {"**", "a/b", true},
      {"**/", "a", true},
      {"**/x", "x", true},
      {"**/x", "a/b/x", true},
      {"**/x", "ax", false},
      {"**x", "ax", true},
      {"**/x", "a/x/y", true},
      {"**/*.go", "x.go", true},
      {"**/*.go", "a/b/x.go", true},
      {"**/*.go", "a/b/x.goo", false},
      {"a/**", "a/b/c", true},
      {"a/**", "a", false},
      {"a**", "abc/d", true},
      {"a/**/b", "a/b", true},
      {"a/**/b", "a/x/y/b", true},
      {"a/**/b", "a/xb", false},
      {"a/**/b", "ab", false},
      {"**/a/**/b", "x/a/y/b", true},
      {"**/**", "x/y", true},
      {"a/**/*", "a/b", true},
      {"**/foo/bar", "x/foo/bar", true},
      {"**/foo/bar", "foo/bar", true},
      {"[a-c]x", "bx", true},
      {"[a-c]x", "dx", false},
      {"[^a]", "b", true},
      {"[^a]", "a", false},
      {"[!a]", "!", true},
      {"[!a]", "b", false},
      {"a\\*b", "a*b", true},
      {"a\\*b", "axb", false},
      {"a.b", "axb", false},
      {"a^*", "a^b", false},
      {"(x)|{y}$+", "(x)|{y}$+", true},
      {"*(x)+", "a(x)+", true},
      {"./a", "a", true},
      {"a/", "a", true},
      {"a/../b", "b", true},
      {"*\n*", "a\nb", true},
      {"**/a*", "x\ny/ab", false},
      {"**/.cache/**", "a/.cache/b", true},
      {"**/.cache/**", "a/.cache", false},
      {"*a*bc*", "xaxbcx", true},
      {"*a*bc*", "xaxbxc", false},
  };
  for (const Case& c : cases)
    EXPECT_EQ(IgnoreMatcher({c.pattern}).excludes(c.path), c.excluded) << c.pattern << " on " << c.path;
}

TEST(Ignore, LetsTheLastMatchDecide) {
  struct Case {
    Words patterns;
    const char* path;
    bool excluded;
  };
  const Case cases[] = {
      {{"ba*", "!bay"}, "bar", true},
      {{"ba*", "!bay"}, "bay", false},
      {{"!bay", "ba*"}, "bay", true},
      {{"*", "!a/b"}, "a/b", false},
      {{"*", "!a/b"}, "a/b/c", false},
      {{"*", "!a/b"}, "a/c", true},
      {{"*", "!a"}, "a/b", false},
      {{"dir", "!dir/keep", "dir/keep/not"}, "dir/keep/x", false},
      {{"dir", "!dir/keep", "dir/keep/not"}, "dir/keep/not/x", true},
      {{"**/*.md", "!README.md"}, "README.md", false},
      {{"**/*.md", "!README.md"}, "docs/README.md", true},
      {{"**/*.md", "!**/README.md", "docs"}, "docs/README.md", true},
      {{"a", "!a", "a"}, "a", true},
      {{}, "a", false},
  };
  for (const Case& c : cases) {
    const IgnoreMatcher matcher(c.patterns);
    EXPECT_EQ(matcher.excludes(c.path), c.excluded) << c.patterns.front() << " on " << c.path;
    IgnoreMatcher::Verdict verdict;
    const std::string_view path = c.path;
    for (std::size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1))
      verdict = matcher.judge(path.substr(0, slash), verdict);
    EXPECT_EQ(matcher.excluded(matcher.judge(path, verdict)), c.excluded) << "walking to " << path;
  }
}

TEST(Ignore, TellsWhetherAWalkMustGoOn) {
  const auto below = [](const Words& patterns, const char* directory) {
    const IgnoreMatcher matcher(patterns);
    return matcher.may_include_below(directory, matcher.judge(directory, {}));
  };
  EXPECT_FALSE(below({"a"}, "a"));
  EXPECT_TRUE(below({"a", "!a/b"}, "a"));
  EXPECT_FALSE(below({"a", "!b/c"}, "a"));
  EXPECT_FALSE(below({"!a/b", "a"}, "a")) << "what comes before cannot take back";
  EXPECT_TRUE(below({"a", "!**/x"}, "a"));
  EXPECT_TRUE(below({"a", "!a/*/x"}, "a/b"));
  EXPECT_FALSE(below({"a", "!ab"}, "a"));
}

TEST(Ignore, GivesTheClassicBuilderItsFiles) {
  EXPECT_EQ(with_build_files({"*"}, "Dockerfile"), Words({"*", "!.dockerignore", "!Dockerfile"}));
  EXPECT_EQ(with_build_files({"Dockerfile"}, "./Dockerfile"), Words({"Dockerfile", "!Dockerfile"}));
  EXPECT_EQ(with_build_files({"x"}, "Dockerfile"), Words({"x"}));
  EXPECT_TRUE(IgnoreMatcher({"*"}).excludes_root());
  EXPECT_FALSE(IgnoreMatcher({".*"}).excludes_root());
}

TEST(Ignore, IsFastForManyPaths) {
  Words patterns = {"**/node_modules", "**/*.pyc", ".git", "build/*", "**/.cache/**", "!keep.pyc"};
  for (int i = 0; i < 500; ++i) patterns.push_back("some/path/number/" + std::to_string(i));
  const IgnoreMatcher matcher(patterns);
  const auto start = std::chrono::steady_clock::now();
  int excluded = 0;
  for (int i = 0; i < 100000; ++i)
    excluded += matcher.excludes("src/part" + std::to_string(i % 100) + "/file" + std::to_string(i) +
                                 (i % 10 == 0 ? ".pyc" : ".py"))
                    ? 1
                    : 0;
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(excluded, 10000);
  EXPECT_LT(took, std::chrono::seconds(30));  // a small part of it, unless the machine is busy
  const std::string nasty = std::string(60, '*') + "x";
  std::string stars;
  for (int i = 0; i < 200; ++i) stars += "*a";
  EXPECT_FALSE(IgnoreMatcher({stars + "*b"}).excludes(std::string(4000, 'a')));
  EXPECT_FALSE(IgnoreMatcher({nasty}).excludes(std::string(4000, 'a')));
}

}  // namespace
}  // namespace gantry::dockerfile
