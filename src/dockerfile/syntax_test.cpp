#include "dockerfile/syntax.hpp"

#include <gtest/gtest.h>

#include "base/text.hpp"
#include "dockerfile/test_support.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;

Node only(std::string_view text) {
  Syntax syntax = parse_syntax(text);
  EXPECT_EQ(syntax.nodes.size(), 1U) << text;
  return std::move(syntax.nodes.front());
}

TEST(Syntax, SplitsInstructionsIntoTheirShapes) {
  struct Case {
    const char* text;
    Words args;
    bool json;
  };
  const Case cases[] = {
      {"RUN echo  hi ", {"echo  hi"}, false},
      {"RUN [\"a\", \"b c\"]", {"a", "b c"}, true},
      {"RUN [\"a\"]x", {"[\"a\"]x"}, false},
      {"RUN ['a']", {"['a']"}, false},
      {"ENTRYPOINT []", {}, true},
      {"ENTRYPOINT []random string", {"[]random string"}, false},
      {"CMD", {}, false},
      {"COPY a  b\t/c/", {"a", "b", "/c/"}, false},
      {"COPY [\"a b\", \"/c/\"]", {"a b", "/c/"}, true},
      {"FROM  busybox   AS x", {"busybox", "AS", "x"}, false},
      {"WORKDIR /a b ", {"/a b"}, false},
      {"EXPOSE 80 443/udp", {"80", "443/udp"}, false},
      {"ARG a b=1 c=\"x y\" d='' e=x\\ y", {"a", "b=1", "c=\"x y\"", "d=''", "e=x\\ y"}, false},
      {"HEALTHCHECK CMD curl x", {"CMD", "curl x"}, false},
      {"HEALTHCHECK --interval=1s CMD [\"a\",\"b\"]", {"CMD", "a", "b"}, true},
      {"MAINTAINER me <me@x>", {"me <me@x>"}, false},
      {"VOLUME /a /b", {"/a", "/b"}, false},
      {"FNTRYPOINT x", {}, false},
  };
  for (const Case& c : cases) {
    const Node node = only(c.text);
    EXPECT_EQ(node.args, c.args) << c.text;
    EXPECT_EQ(node.json, c.json) << c.text;
  }
}

TEST(Syntax, ReadsNamesAndValues) {
  struct Case {
    const char* text;
    std::vector<KeyValue> pairs;
  };
  const Case cases[] = {
      {"ENV a=1 b=\"x y\" c='' d=$a", {{"a", "1"}, {"b", "\"x y\""}, {"c", "''"}, {"d", "$a"}}},
      {"ENV a  some words \"here\"", {{"a", "some words \"here\"", true}}},
      {"ENV a=x\\ y", {{"a", "x\\ y"}}},
      {"LABEL \"k 2\"=\"v 2\" k=", {{"\"k 2\"", "\"v 2\""}, {"k", ""}}},
      {"LABEL k v=w", {{"k", "v=w", true}}},
  };
  for (const Case& c : cases) EXPECT_EQ(only(c.text).pairs, c.pairs) << c.text;
  EXPECT_EQ(refusal([] { parse_syntax("ENV a"); }), "ENV must have two arguments");
  EXPECT_EQ(refusal([] { parse_syntax("LABEL a=1 b"); }),
            "Syntax error - can't find = in \"b\". Must be of the form: name=value");
  EXPECT_EQ(refusal([] { parse_syntax("CMD [1]"); }),
            "when using JSON array syntax, arrays must be comprised of strings only");
}

TEST(Syntax, TakesFlagsOffTheArguments) {
  struct Case {
    const char* text;
    Words flags;
    Words args;
  };
  const Case cases[] = {
      {"COPY --from=a --link b c", {"--from=a", "--link"}, {"b", "c"}},
      {"COPY b --from=a c", {}, {"b", "--from=a", "c"}},
      {"RUN --mount=type=bind,target=/x -- --not-a-flag", {"--mount=type=bind,target=/x"}, {"--not-a-flag"}},
      {"COPY --chown=a\\ b x y", {"--chown=a b"}, {"x", "y"}},
      {"COPY --chown=\"a b\" x y", {"--chown=a b"}, {"x", "y"}},
      {"COPY --from=\xC3\xA0 x y", {"--from=\xC3\xA0"}, {"x", "y"}},
      {"RUN -x", {}, {"-x"}},
  };
  for (const Case& c : cases) {
    const Node node = only(c.text);
    EXPECT_EQ(node.flags, c.flags) << c.text;
    EXPECT_EQ(node.args, c.args) << c.text;
  }
}

TEST(Syntax, JoinsContinuedLines) {
  struct Case {
    const char* text;
    const char* original;
    LineRange lines;
  };
  const Case cases[] = {
      {"RUN a \\\n  b", "RUN a   b", {1, 2}},     {"RUN a\\\nb", "RUN ab", {1, 2}},
      {"  RUN a \\  \t\n b", "RUN a  b", {1, 2}}, {"RUN a \\\n# comment \\\n   # another\n b", "RUN a  b", {1, 4}},
      {"RUN a \\\\\n", "RUN a \\\\", {1, 1}},     {"RUN a # b", "RUN a # b", {1, 1}},
      {"\n\n# c\nRUN a\r\n", "RUN a", {4, 4}},    {"RUN a \\", "RUN a ", {1, 1}},
      {"RUN a \\\n\\\nb", "RUN a b", {1, 3}},     {"# escape=`\nRUN a `\n b\\", "RUN a  b\\", {2, 3}},
      {"\xEF\xBB\xBFRUN a", "RUN a", {1, 1}},
  };
  for (const Case& c : cases) {
    const Node node = only(c.text);
    EXPECT_EQ(node.original, c.original) << c.text;
    EXPECT_EQ(node.lines, c.lines) << c.text;
  }
  const Syntax blank = parse_syntax("RUN a \\\n\n b\nRUN c");
  EXPECT_EQ(blank.nodes.front().original, "RUN a  b");
  EXPECT_EQ(blank.empty_continuations, std::vector<LineRange>({{1, 3}}));
}

TEST(Syntax, ReadsDirectivesAtTheTopOnly) {
  const Syntax all = parse_syntax("# SynTax = docker/dockerfile:1 \n#escape=`\n# check=skip=all\nFROM a");
  ASSERT_EQ(all.directives.size(), 3U);
  EXPECT_EQ(all.directives[0].name, "syntax");
  EXPECT_EQ(all.directives[0].value, "docker/dockerfile:1");
  EXPECT_EQ(all.directives[2].lines, (LineRange{3, 3}));
  EXPECT_EQ(all.escape, '`');
  EXPECT_EQ(all.nodes.front().comments, Words());
  for (const char* ended :
       {"\n# escape=`\nFROM a", "# hello\n# escape=`\nFROM a", "# unknown=1\n# escape=`\nFROM a", "FROM a\n# escape=`"})
    EXPECT_EQ(parse_syntax(ended).escape, '\\') << ended;
  EXPECT_EQ(refusal([] { parse_syntax("# escape=x\nFROM a"); }), "invalid escape token 'x' does not match ` or \\");
  EXPECT_EQ(refusal([] { parse_syntax("# escape=`\n# escape=`\nFROM a"); }),
            "only one escape parser directive can be used");
  EXPECT_EQ(find_directive("#!/bin/x\n# check = error=true\nBAD \"", "check")->value, "error=true");
  EXPECT_EQ(detect_syntax("// syntax=a/b\n{}")->value, "a/b");
  EXPECT_EQ(detect_syntax("{\"syntax\": \"c\"}")->value, "c");
  EXPECT_FALSE(detect_syntax("FROM a\n# syntax=b"));
}

TEST(Syntax, KeepsTheCommentRightAbove) {
  EXPECT_EQ(only("# one\n#  two \nFROM a").comments, Words({"one", "two"}));
  EXPECT_EQ(only("# one\n\nFROM a").comments, Words());
  EXPECT_EQ(only("# one\n#\nFROM a").comments, Words());
}

TEST(Syntax, ReadsHeredocs) {
  struct Case {
    const char* text;
    std::vector<Heredoc> heredocs;
  };
  const Case cases[] = {
      {"RUN <<EOF\na\nb\nEOF", {{"EOF", "a\nb\n"}}},
      {"RUN <<-EOF\n\ta\n\t\tEOF", {{"EOF", "\ta\n", true, true}}},
      {"RUN <<'EOF' cat\n$a\nEOF\n", {{"EOF", "$a\n", false}}},
      {"RUN <<\"E\"OF\nEOF", {{"EOF", "", false}}},
      {"RUN <<A 3<<B\n1\nA\n2\nB", {{"A", "1\n"}, {"B", "2\n"}}},
      {"COPY <<a <<b /x/\n# no comment\n\na\n\\\nb", {{"a", "# no comment\n\n"}, {"b", "\\\n"}}},
      {"ADD <<x /y\r\nz\r\nx\r\n", {{"x", "z\r\n"}}},
      {"ONBUILD RUN <<EOF\nx\nEOF", {{"EOF", "x\n"}}},
      {"RUN cat <<<EOF", {}},
      {"RUN [\"<<EOF\"]", {}},
      {"RUN echo \"<<EOF\"", {}},
      {"RUN echo '<<EOF", {}},
      {"CMD <<EOF", {}},
      {"RUN <<", {}},
  };
  for (const Case& c : cases) EXPECT_EQ(only(c.text).heredocs, c.heredocs) << c.text;
  EXPECT_EQ(only("RUN <<EOF\na\nEOF").lines, (LineRange{1, 3}));
  EXPECT_EQ(refusal([] { parse_syntax("RUN <<EOF\nx"); }), "unterminated heredoc");
  EXPECT_EQ(strip_leading_tabs("\t\ta\n\tb\tc\n"), "a\nb\tc\n");
}

TEST(Syntax, RefusesWhatIsEmptyOrTooLarge) {
  EXPECT_EQ(refusal([] { parse_syntax(""); }), "the Dockerfile cannot be empty");
  EXPECT_EQ(refusal([] { parse_syntax("# only\n\n"); }), "file with no instructions");
  EXPECT_EQ(refusal([] { parse_syntax("RUN " + std::string(65532, 'x')); }),
            "dockerfile line greater than max allowed size of 65535");
  EXPECT_EQ(refusal([] { parse_syntax("RUN " + std::string(65531, 'x') + "\n"); }), "");
  EXPECT_NE(refusal([] { parse_syntax(std::string(kMaxDockerfileSize + 1, '\n')); }), "");
  std::string many;
  for (std::size_t i = 0; i <= kMaxInstructions; ++i) many += "RUN\n";
  EXPECT_EQ(refusal([&] { parse_syntax(many); }), "the Dockerfile has too many instructions");
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "ONBUILD ";
  EXPECT_EQ(refusal([&] { parse_syntax(nested + "RUN x"); }), "");
}

TEST(Syntax, TellsTheLinesOfAnError) {
  EXPECT_EQ(refusal([] { parse_syntax("FROM a\nENV \xff=1 \xfe"); }),
            "Syntax error - can't find = in \"\\xfe\". Must be of the form: name=value");
  try {
    parse_syntax("FROM a\nENV \\\n b");
    FAIL();
  } catch (const SourceError& e) {
    EXPECT_EQ(e.lines(), (LineRange{2, 3}));
  }
}

}  // namespace
}  // namespace gantry::dockerfile
