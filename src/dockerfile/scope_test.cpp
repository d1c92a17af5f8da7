#include "dockerfile/scope.hpp"

#include <gtest/gtest.h>

#include "dockerfile/expand_instruction.hpp"
#include "dockerfile/test_support.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;
using Args = std::map<std::string, std::string>;

ScopeInputs inputs(Args args = {}) {
  ScopeInputs in;
  in.build_args = std::move(args);
  in.build_platform.architecture = "amd64";
  in.target_platform = {"linux", "", "arm", "v7"};
  return in;
}

/// Runs the ENV and ARG of the last stage; what `names` are then.
Words values_after(const std::string& text, const Args& args, const Words& names, ArgOverEnv precedence = {},
                   const Words& image_env = {}) {
  const Dockerfile file = parse(text);
  const GlobalScope global(file, inputs(args));
  StageScope scope(global, image_env, precedence);
  for (const Instruction& written : file.stages.back().instructions) {
    const Instruction instruction = expand_instruction(written, scope.environment(), file.escape);
    if (const auto* env = std::get_if<EnvInstruction>(&instruction.body)) scope.apply(*env);
    if (const auto* arg = std::get_if<ArgInstruction>(&instruction.body)) scope.apply(*arg);
  }
  Words values;
  for (const std::string& name : names) {
    const std::string* value = scope.environment().find(name);
    values.push_back(value == nullptr ? "<unset>" : *value);
  }
  return values;
}

TEST(Scope, DecidesWhichValueAnArgHas) {
  struct Case {
    const char* text;
    Args args;
    Words names;
    Words values;
  };
  const Case cases[] = {
      {"FROM a\nARG x", {}, {"x"}, {"<unset>"}},
      {"FROM a\nARG x=1", {}, {"x"}, {"1"}},
      {"FROM a\nARG x=1", {{"x", "2"}}, {"x"}, {"2"}},
      {"FROM a\nARG x=", {}, {"x"}, {""}},
      {"FROM a", {{"x", "2"}}, {"x"}, {"<unset>"}},
      {"ARG x=g\nFROM a\nARG x", {}, {"x"}, {"g"}},
      {"ARG x=g\nFROM a\nARG x=own", {}, {"x"}, {"own"}},
      {"ARG x=g\nFROM a\nARG x", {{"x", "2"}}, {"x"}, {"2"}},
      {"ARG x=g\nFROM a", {}, {"x"}, {"<unset>"}},
      {"FROM a\nARG x=1\nENV x=2", {{"x", "3"}}, {"x"}, {"2"}},
      {"FROM a\nENV x=1\nARG x=2", {}, {"x"}, {"2"}},
      {"FROM a\nARG x\nENV y=${x:-d}", {}, {"y"}, {"d"}},
      {"FROM a\nARG x=${NO?never}", {{"x", "1"}}, {"x"}, {"1"}},
      {"FROM a\nENV a=1\nENV a=2 b=$a", {}, {"a", "b"}, {"2", "1"}},
      {"FROM a\nARG a=1 b=$a", {}, {"b"}, {"1"}},
      {"FROM a\nARG TARGETARCH", {}, {"TARGETARCH", "TARGETOS"}, {"arm", "<unset>"}},
      {"FROM a\nARG TARGETPLATFORM BUILDPLATFORM",
       {},
       {"TARGETPLATFORM", "BUILDPLATFORM"},
       {"linux/arm/v7", "linux/amd64"}},
      {"FROM a\nARG TARGETARCH", {{"TARGETARCH", "x"}}, {"TARGETARCH"}, {"x"}},
      {"FROM a AS last\nARG TARGETSTAGE", {}, {"TARGETSTAGE"}, {"last"}},
      {"FROM a\nARG TARGETSTAGE", {}, {"TARGETSTAGE"}, {"default"}},
      {"FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=true", {}, {"BUILDKIT_SBOM_SCAN_STAGE"}, {"<unset>"}},
      {"ARG a1=\"foo bar\" a2=box\nARG a3=\"$a2-foo\"\nFROM busy$a2\nARG a3 a4=\"123 456\" a1",
       {},
       {"a1", "a3", "a4"},
       {"foo bar", "box-foo", "123 456"}},
      {"FROM a\nARG HTTP_PROXY", {{"HTTP_PROXY", "p"}}, {"HTTP_PROXY"}, {"p"}},
      {"FROM a\nENV x=$HTTP_PROXY", {{"HTTP_PROXY", "p"}}, {"x"}, {""}},
  };
  for (const Case& c : cases) EXPECT_EQ(values_after(c.text, c.args, c.names), c.values) << c.text;
}

TEST(Scope, LetsEnvWinForTheClassicBuilder) {
  EXPECT_EQ(values_after("FROM a\nENV x=1\nARG x=2", {{"x", "3"}}, {"x"}, ArgOverEnv::env_wins), Words({"1"}));
  EXPECT_EQ(values_after("FROM a\nARG x=2", {}, {"x"}, ArgOverEnv::env_wins, {"x=image"}), Words({"image"}));
  EXPECT_EQ(values_after("FROM a\nARG x=2", {}, {"x"}, ArgOverEnv::last_wins, {"x=image"}), Words({"2"}));
}

TEST(Scope, ExpandsGlobalDefaultsFromWhatIsAbove) {
  const Dockerfile file = parse("ARG a=${TARGETARCH}-x\nARG b=$a c\nFROM x");
  const GlobalScope global(file, inputs());
  EXPECT_EQ(*global.environment().find("b"), "arm-x");
  EXPECT_TRUE(global.known_names().contains("c"));
  EXPECT_EQ(global.environment().find("c"), nullptr);
  EXPECT_EQ(refusal([] { GlobalScope(parse("ARG F=${F:?\"custom error\"}\nFROM x"), inputs()); }),
            "failed to process \"${F:?\\\"custom error\\\"}\": F: custom error");
  EXPECT_EQ(*GlobalScope(parse("ARG F=${F:?no}\nFROM x"), inputs({{"F", "1"}})).environment().find("F"), "1");
}

TEST(Scope, ListsArgsForHistoryOnce) {
  const Dockerfile file = parse("FROM a\nARG foo=1\nARG bar=123\nENV foo=env\nARG none\nARG foo=2");
  const GlobalScope global(file, inputs());
  StageScope scope(global, {});
  for (const Instruction& instruction : file.stages[0].instructions) {
    if (const auto* env = std::get_if<EnvInstruction>(&instruction.body)) scope.apply(*env);
    if (const auto* arg = std::get_if<ArgInstruction>(&instruction.body)) scope.apply(*arg);
  }
  EXPECT_EQ(scope.history_args(), Words({"foo=2", "bar=123", "none="}));
  EXPECT_TRUE(scope.has_arg("none"));
  StageScope child = scope;  // FROM this-stage
  EXPECT_EQ(child.history_args().size(), 3U);
}

TEST(Scope, TellsProxiesAndUnusedBuildArgs) {
  const Args args = {{"http_proxy", "p"}, {"NO_PROXY", "n"}, {"UNUSED", "1"}, {"x", "1"}, {"TARGETARCH", "z"}};
  const auto proxies = proxy_variables(args);
  ASSERT_EQ(proxies.size(), 4U);
  EXPECT_EQ(proxies[0], (std::pair<std::string, std::string>("HTTP_PROXY", "p")));
  EXPECT_EQ(proxies[1].first, "http_proxy");
  EXPECT_EQ(unused_build_args(parse("FROM a\nARG x"), args), Words({"UNUSED"}));
}

}  // namespace
}  // namespace gantry::dockerfile
