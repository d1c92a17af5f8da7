#include "image/reference.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::image {
namespace {

std::string message_of(std::string_view text) {
  try {
    (void)parse_reference(text);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
  return "";
}

const std::string kHex64(64, 'a');

TEST(Reference, CompletesWhatUsersType) {
  struct Case {
    const char* typed;
    const char* canonical;
    const char* familiar;
  };
  const std::string with_digest = "docker.io/library/x@sha256:" + kHex64;
  for (const Case& c : {Case{"alpine", "docker.io/library/alpine", "alpine"},
                        Case{"alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"},
                        Case{"someone/tool", "docker.io/someone/tool", "someone/tool"},
                        Case{"library/alpine", "docker.io/library/alpine", "alpine"},
                        Case{"docker.io/library/alpine", "docker.io/library/alpine", "alpine"},
                        Case{"index.docker.io/alpine", "docker.io/library/alpine", "alpine"},
                        Case{"localhost/x", "localhost/x", "localhost/x"},
                        Case{"localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"},
                        Case{"quay.io/a/b/c", "quay.io/a/b/c", "quay.io/a/b/c"}, Case{"HOST/x", "HOST/x", "HOST/x"},
                        Case{"[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"},
                        Case{"a__b/c--d.e", "docker.io/a__b/c--d.e", "a__b/c--d.e"}}) {
    const Reference ref = parse_reference(c.typed);
    EXPECT_EQ(ref.canonical(), c.canonical) << c.typed;
    EXPECT_EQ(ref.familiar(), c.familiar) << c.typed;
  }
  const Reference both = parse_reference("x:t@sha256:" + kHex64);
  EXPECT_EQ(both.tag, "t");
  EXPECT_EQ(both.digest, "sha256:" + kHex64);
  EXPECT_EQ(both.with_digest(both.digest).canonical(), with_digest);
}

TEST(Reference, RefusesWithDockersWords) {
  EXPECT_EQ(message_of("UPPER"), "invalid reference format: repository name (library/UPPER) must be lowercase");
  EXPECT_EQ(message_of(kHex64), "invalid repository name (" + kHex64 + "), cannot specify 64-byte hexadecimal strings");
  EXPECT_EQ(message_of(std::string(256, 'a')), "repository name must not be more than 255 characters");
  for (const char* bad : {"", "a b", "x:", "x:-t", "x@sha256:abc", "a//b", "/x", "x/", "-x", "x_", "a___b", "x:t:u",
                          "a..b", "http://x/y", "x@y", "\xff"})
    EXPECT_EQ(message_of(bad), "invalid reference format") << bad;
  EXPECT_EQ(message_of("x:" + std::string(129, 't')), "invalid reference format");
  EXPECT_EQ(message_of("x@md5:" + std::string(32, 'a')), "unsupported digest algorithm");
}

TEST(Reference, DefaultTagOnlyWhereNothingIsGiven) {
  EXPECT_EQ(parse_reference("x").with_default_tag().familiar(), "x:latest");
  EXPECT_EQ(parse_reference("x:1").with_default_tag().familiar(), "x:1");
  EXPECT_EQ(parse_reference("x@sha256:" + kHex64).with_default_tag().tag, "");
}

TEST(Reference, PatternsMatchLikeGosPathMatch) {
  EXPECT_TRUE(matches_pattern("al*", "alpine"));
  EXPECT_TRUE(matches_pattern("*:3.2?", "alpine:3.20"));
  EXPECT_FALSE(matches_pattern("*", "a/b"));
  EXPECT_TRUE(matches_pattern("*/*", "a/b"));
  EXPECT_TRUE(matches_pattern("[a-c]x", "bx"));
  EXPECT_FALSE(matches_pattern("[^a-c]x", "bx"));
  EXPECT_TRUE(matches_pattern("a\\*", "a*"));
  EXPECT_TRUE(matches_pattern("*a*b*c", "xxaxxbxxc"));
  EXPECT_FALSE(matches_pattern("a", "ab"));
  EXPECT_THROW(matches_pattern("[", "a"), Error);
  EXPECT_THROW(matches_pattern("a\\", "a"), Error);
  EXPECT_TRUE(familiar_matches("alpine", parse_reference("alpine:3.20")));
  EXPECT_TRUE(familiar_matches("alpine:*", parse_reference("alpine:3.20")));
  EXPECT_FALSE(familiar_matches("busybox", parse_reference("alpine:3.20")));
}

}  // namespace
}  // namespace gantry::image
