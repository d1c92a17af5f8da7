#include "dockerfile/expand.hpp"

#include <gtest/gtest.h>

#include "dockerfile/test_support.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;

const Environment& vars() {
  static const Environment kVars = Environment::from_list({"PWD=/home", "SHELL=bash", "KOREAN=\xED\x95\x9C\xEA\xB5\xAD",
                                                           "NULL=", "FOO=xxyy", "PATHS=/a/foo/b/c.txt", "two=a  b",
                                                           "STARS=a***yy*", "R=()[]{}^$.*?|\\x", "X=x", "LINES=a\nb"});
  return kVars;
}

TEST(Expand, ReplacesVariables) {
  struct Case {
    const char* word;
    const char* text;
  };
  const Case cases[] = {
      {"hello", "hello"},
      {"$PWD", "/home"},
      {"he${PWD}x", "he/homex"},
      {"$PWD.txt", "/home.txt"},
      {"$PWDx", ""},
      {"$", "$"},
      {"a$.b", "a$.b"},
      {"$ x", "$ x"},
      {"$1$12x$@$$y", "xy"},
      {"$KOREAN", "\xED\x95\x9C\xEA\xB5\xAD"},
      {"${UNSET}", ""},
      {"${UNSET:-x${PWD}}", "x/home"},
      {"${NULL:-x}", "x"},
      {"${NULL-x}", ""},
      {"${UNSET-x}", "x"},
      {"${PWD:+x}", "x"},
      {"${NULL:+x}", ""},
      {"${NULL+x}", "x"},
      {"${UNSET+x}", ""},
      {"${PWD:?no}", "/home"},
      {"${NULL?no}", ""},
      {"${UNSET:-\"}\"}", "}"},
      {"${UNSET:-a\\}b}", "a}b"},
      {"${UNSET:-${NULL:-${SHELL}}}", "bash"},
      {"${FOO#x}", "xyy"},
      {"${FOO##*x}", "yy"},
      {"${FOO#*x*y}", "y"},
      {"${FOO#*}", "xxyy"},
      {"${FOO##*}", ""},
      {"${FOO#$X}", "xyy"},
      {"${FOO%y}", "xxy"},
      {"${FOO%%y*}", "xx"},
      {"${FOO%x}", "xxyy"},
      {"${FOO#}", "xxyy"},
      {"${STARS%%\\**\\*}", "a"},
      {"${STARS%%\\**}", "a"},
      {"${STARS%\\**}", "a***yy"},
      {"${R#()[]{\\}^$.\\*\\?|\\\\}", "x"},
      {"${PATHS/\\/?\\//\\/}", "\\/foo/b/c.txt"},
      {"${PATHS//\\/?\\//_}", "_foo_c.txt"},
      {"${FOO/x/-}", "-xyy"},
      {"${FOO//x/-}", "--yy"},
      {"${FOO//[x]/-}", "xxyy"},
      {"${FOO//x*/-}", "-"},
      {"${FOO///}", "xxyy"},
      {"${FOO/$NULL/ww}", "wwxxyy"},
      {"${FOO//$NULL/-}", "-x-x-y-y-"},
      {"${UNSET///}", ""},
      {"${LINES##*}", "\nb"},
      {"${LINES/?*/-}", "-\nb"},
      {"\\$PWD", "$PWD"},
      {"\\\\$PWD", "\\/home"},
      {"a\\", "a"},
      {"'$PWD'", "$PWD"},
      {"'a\\b'", "a\\b"},
      {"\"$PWD\"", "/home"},
      {"\"\\$PWD \\\" \\\\ \\x\"", "$PWD \" \\ \\x"},
      {"\"'\"'\"'", "'\""},
      {"a''b\"\"", "ab"},
  };
  for (const Case& c : cases) {
    std::string text;
    EXPECT_EQ(refusal([&] { text = expand(c.word, vars()).text; }), "") << c.word;
    EXPECT_EQ(text, c.text) << c.word;
  }
}

TEST(Expand, RefusesWhatIsNoSubstitution) {
  struct Case {
    const char* word;
    const char* reason;
  };
  const Case cases[] = {
      {"${", "syntax error: missing '}'"},
      {"${PWD", "syntax error: missing '}'"},
      {"${}", "syntax error: bad substitution"},
      {"${:}", "syntax error: bad substitution"},
      {"${{x}}", "syntax error: bad substitution"},
      {"${PWD=x}", "unsupported modifier (=) in substitution"},
      {"${PWD:x}", "unsupported modifier (:x) in substitution"},
      {"${PWD:#x}", "unsupported modifier (:#) in substitution"},
      {"${PWD:%x}", "unsupported modifier (:%) in substitution"},
      {"${PWD:-x", "syntax error: missing '}'"},
      {"${PWD:", "syntax error: missing '}'"},
      {"${FOO//ww}", "syntax error: missing '/' in ${}"},
      {"${FOO/a/b", "syntax error: missing '}'"},
      {"${UNSET?}", "UNSET: is not allowed to be unset"},
      {"${UNSET:?}", "UNSET: is not allowed to be unset"},
      {"${NULL:?}", "NULL: is not allowed to be empty"},
      {"${UNSET:?say $X}", "UNSET: say x"},
      {"'x", "unexpected end of statement while looking for matching single-quote"},
      {"\"x", "unexpected end of statement while looking for matching double-quote"},
      {"${FOO#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"},
  };
  for (const Case& c : cases) {
    const std::string message = refusal([&] { expand(c.word, vars()); });
    EXPECT_TRUE(message.starts_with("failed to process \"") && message.ends_with(std::string(": ") + c.reason))
        << c.word << ": " << message;
  }
  EXPECT_EQ(refusal([] { expand("${FOO", {}); }), "failed to process \"${FOO\": syntax error: missing '}'");
}

TEST(Expand, SplitsWords) {
  struct Case {
    const char* word;
    Words words;
  };
  const Case cases[] = {
      {"a b", {"a", "b"}},
      {"  a\t b ", {"a", "b"}},
      {"$two", {"a", "b"}},
      {"\"$two\"", {"a  b"}},
      {"x$two y", {"xa", "b", "y"}},
      {"'a b'c", {"a bc"}},
      {"a\\ b", {"a b"}},
      {"''", {}},
      {"$UNSET", {}},
      {"a\xC2\xA0"
       "b",
       {"a", "b"}},
  };
  for (const Case& c : cases) EXPECT_EQ(expand(c.word, vars()).words, c.words) << c.word;
}

TEST(Expand, HonoursItsOptions) {
  ExpandOptions backtick;
  backtick.escape = '`';
  EXPECT_EQ(expand("`$PWD c:\\dir", vars(), backtick).text, "$PWD c:\\dir");
  ExpandOptions raw;
  raw.raw_quotes = true;
  raw.raw_escapes = true;
  raw.keep_unset = true;
  EXPECT_EQ(expand("\"$PWD\" '$PWD' \\$X $UNSET ${UNSET:-x}${UNSET}", vars(), raw).text,
            "\"/home\" '$PWD' \\$X $UNSET ${UNSET:-x}${UNSET}");
  ExpandOptions body;
  body.ignore_quotes = true;
  EXPECT_EQ(expand("\"$PWD\" '$PWD' \\$X it's", vars(), body).text, "\"/home\" '/home' $X it's");
}

TEST(Expand, TellsWhichVariablesItLookedUp) {
  const Expansion result = expand("$FOO ${MISSING:-$NULL} ${OTHER+$UNSEEN}", vars());
  EXPECT_EQ(result.matched, (std::set<std::string>{"FOO", "NULL"}));
  EXPECT_EQ(result.unmatched, (std::set<std::string>{"MISSING", "OTHER", "UNSEEN"}));
  Expansion looked_up;
  EXPECT_NE(refusal([&] { expand("$A ${B?}", vars(), {}, &looked_up); }), "");
  EXPECT_EQ(looked_up.unmatched, (std::set<std::string>{"A", "B"}));
}

TEST(Expand, EndsWhatWouldTakeAllMemoryOrTime) {
  Environment full;
  full.set("a", std::string(kMaxEnvironment - 10, 'a'));
  EXPECT_EQ(refusal([&] { full.set("b", std::string(10, 'b')); }), "the variables are too large");
  full.set("a", "small");
  full.set("b", std::string(1000, 'b'));
  Environment big;
  big.set("a", std::string(1024 * 1024, 'a'));
  EXPECT_NE(refusal([&] { expand("$a$a$a$a$a$a$a$a$a$a", big); }), "");
  EXPECT_NE(refusal([&] { expand("${a//a/" + std::string(100, 'x') + "}", big); }), "");
  std::string stars;
  for (int i = 0; i < 200; ++i) stars += "*a";
  EXPECT_NE(refusal([&] { expand("${a//" + stars + "b/x}", big); }), "");
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "${x:-";
  EXPECT_NE(refusal([&] { expand(deep, {}); }), "");
}

}  // namespace
}  // namespace gantry::dockerfile
