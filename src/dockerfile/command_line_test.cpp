#include "dockerfile/command_line.hpp"

#include <gtest/gtest.h>

#include "dockerfile/dockerfile.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;

RunCommand run_of(const std::string& text, const Words& shell = {}) {
  return run_command(std::get<RunInstruction>(parse("FROM a\n" + text).stages[0].instructions[0].body), shell);
}

TEST(CommandLine, PutsTheShellInFrontOfText) {
  struct Case {
    const char* text;
    Words args;
  };
  const Case cases[] = {
      {"RUN a  b", {"/bin/sh", "-c", "a  b"}},
      {"RUN [\"a\", \"b\"]", {"a", "b"}},
      {"RUN [\"a\"]x", {"/bin/sh", "-c", "[\"a\"]x"}},
      {"RUN <<EOF\necho $x\nEOF", {"/bin/sh", "-c", "echo $x\n"}},
      {"RUN <<-EOF\n\techo\n\tEOF", {"/bin/sh", "-c", "echo\n"}},
      {"RUN <<'EOF'\necho\nEOF", {"/bin/sh", "-c", "echo\n"}},
      {"RUN cat <<A 3<<-B | x\n1\nA\n\t2\nB", {"/bin/sh", "-c", "cat <<A 3<<-B | x\n1\nA\n\t2\nB"}},
      {"RUN <<A <<B\n1\nA\n2\nB", {"/bin/sh", "-c", "<<A <<B\n1\nA\n2\nB"}},
  };
  for (const Case& c : cases) {
    const RunCommand run = run_of(c.text);
    EXPECT_EQ(run.args, c.args) << c.text;
    EXPECT_FALSE(run.script) << c.text;
  }
  EXPECT_EQ(run_of("RUN <<X\n{print}\nX", {"awk"}).args, Words({"awk", "{print}\n"}));
}

TEST(CommandLine, MakesAScriptOfAHeredocThatIsOne) {
  const RunCommand run = run_of("RUN <<my.sh\n#!/bin/awk -f\n{x}\nmy.sh");
  EXPECT_EQ(run.args, Words({"/bin/sh", "-c", "/dev/pipes/my.sh"}));
  ASSERT_TRUE(run.script);
  EXPECT_EQ(run.script->name, "my.sh");
  EXPECT_EQ(run.script->content, "#!/bin/awk -f\n{x}\n");
}

}  // namespace
}  // namespace gantry::dockerfile
