#include "dockerfile/checks.hpp"

#include <gtest/gtest.h>

#include "dockerfile/check_values.hpp"
#include "dockerfile/test_support.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;

CheckInputs standard() {
  CheckInputs inputs;
  inputs.scope.build_platform.architecture = inputs.scope.target_platform.architecture = "amd64";
  return inputs;
}

Words warnings(const std::string& text, const CheckInputs& inputs = standard()) {
  const CheckResult result = run_checks(text, inputs);
  EXPECT_FALSE(result.failure) << text << ": " << (result.failure ? result.failure->message : "");
  Words list;
  for (const Warning& warning : result.warnings) list.push_back(warning.text());
  return list;
}

TEST(Checks, SaysWhatDockerSays) {
  struct Case {
    const char* text;
    Words warnings;
  };
  const Case cases[] = {
      {"FROM a AS x\nCMD [\"y\"]\n", {}},
      {"FROM a AS Base", {"StageNameCasing: Stage name 'Base' should be lowercase (line 1)"}},
      {"FROM a as x", {"FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"}},
      {"from a AS x", {"FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"}},
      {"FROM a\nRUN x \\\n\n y", {"NoEmptyContinuation: Empty continuation line (line 2)"}},
      {"FROM a\nRUN x\nrun y",
       {"ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line "
        "3)"}},
      {"from a\nrun x\nRun y",
       {"ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (lowercase) (line "
        "3)"}},
      {"FROM a AS x\nFROM b AS x",
       {"DuplicateStageName: Duplicate stage name \"x\", stage names should be unique (line 2)"}},
      {"FROM a AS scratch",
       {"ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)"}},
      {"FROM a\nCMD x\nENTRYPOINT y",
       {"JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals "
        "(line 2)",
        "JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS "
        "signals (line 3)"}},
      {"FROM a\nSHELL [\"x\"]\nCMD y", {}},
      {"FROM a\nMAINTAINER me",
       {"MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"}},
      {"ARG VERSON=1\nFROM a:${VERSION:-1}",
       {"UndefinedArgInFrom: FROM argument 'VERSION' is not declared (did you mean VERSON?) (line 2)"}},
      {"ARG v\nFROM a:${v:-1}", {}},
      {"FROM a\nWORKDIR x\nWORKDIR y",
       {"WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes (line 2)"}},
      {"FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y", {}},
      {"FROM a\nENV DIR=/x\nCOPY $DIRR /y",
       {"UndefinedVar: Usage of undefined variable '$DIRR' (did you mean $DIR?) (line 3)"}},
      {"FROM a\nARG x\nCOPY $x $PATH /y", {}},
      {"FROM a\nARG x=$nope", {"UndefinedVar: Usage of undefined variable '$nope' (line 2)"}},
      {"FROM a\nRUN --mount=type=cache,target=$nope y", {"UndefinedVar: Usage of undefined variable '$nope' (line 2)"}},
      {"FROM a AS b\nENV q=1\nFROM b\nUSER $q", {}},
      {"FROM a\nCMD [\"x\"]\nCMD [\"y\"]",
       {"MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only "
        "the last one will be used (line 2)"}},
      {"FROM a AS b\nCMD [\"x\"]\nFROM b\nCMD [\"y\"]", {}},
      {"FROM a\nENV x y\nLABEL z w",
       {"LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
        "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line "
        "3)"}},
      {"FROM --platform=$TARGETPLATFORM a",
       {"RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the "
        "default behavior (line 1)"}},
      {"FROM --platform=$BUILDPLATFORM a", {}},
      {"FROM a\nENV AWS_SECRET=x PUBLIC_KEY=y\nARG api_token mykey",
       {"SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"AWS_SECRET\") (line 2)",
        "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"api_token\") (line 3)"}},
      {"FROM --platform=linux/amd64 a",
       {"FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line "
        "1)"}},
      {"FROM --platform=linux/amd64 a AS build_amd64", {}},
      {"FROM a\nEXPOSE 80/TcP",
       {"ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase (line 2)"}},
      {"FROM a\nEXPOSE 127.0.0.1:80:80",
       {"ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found "
        "'127.0.0.1:80:80' (line 2)"}},
      {"# words\nFROM a AS x", {}},
      {"# check=experimental=all\n# words\nFROM a AS x\n# y\nARG x y\n# other\nARG x y",
       {"InvalidDefinitionDescription: Comment for FROM should follow the format: `# x <description>` (line 3)",
        "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line "
        "7)"}},
  };
  for (const Case& c : cases) EXPECT_EQ(warnings(c.text), c.warnings) << c.text;
}

TEST(Checks, LooksAtDefaultsOfBaseNames) {
  CheckInputs inputs = standard();
  inputs.scope.build_args = {{"TAG", "1"}};
  EXPECT_EQ(
      warnings("ARG TAG\nFROM busybox:${TAG}", inputs),
      Words({"InvalidDefaultArgInFrom: Default value for ARG busybox:${TAG} results in empty or invalid base image "
             "name (line 2)"}));
  EXPECT_EQ(warnings("ARG TAG=2\nFROM busybox:${TAG}", inputs), Words());
  EXPECT_EQ(warnings("ARG TAG\nFROM busybox:${TAG:-3}", inputs), Words());
}

TEST(Checks, KnowsWhatTheContextLeavesOut) {
  const IgnoreMatcher ignore({"secret", "*.log"});
  CheckInputs inputs = standard();
  inputs.ignore = &ignore;
  EXPECT_EQ(warnings("FROM a AS b\nCOPY ./secret/x a.log ok /y/\nADD a.log http://x/a.log /y/\nCOPY . .\nFROM c\nCOPY "
                     "--from=b secret /",
                     inputs),
            Words({"CopyIgnoredFile: Attempting to Copy file \"secret/x\" that is excluded by .dockerignore (line 2)",
                   "CopyIgnoredFile: Attempting to Copy file \"a.log\" that is excluded by .dockerignore (line 2)",
                   "CopyIgnoredFile: Attempting to Add file \"a.log\" that is excluded by .dockerignore (line 3)"}));
  const IgnoreMatcher all({"*"});
  inputs.ignore = &all;
  EXPECT_EQ(warnings("FROM a\nCOPY . .", inputs),
            Words({"CopyIgnoredFile: Attempting to Copy file \".\" that is excluded by .dockerignore (line 2)"}));
  const IgnoreMatcher negated({"*", "!x"});
  inputs.ignore = &negated;
  EXPECT_EQ(warnings("FROM a\nCOPY y .", inputs), Words());
}

TEST(Checks, UsesWhatIsKnownOfBaseImages) {
  CheckInputs inputs = standard();
  inputs.base_facts = [](const PlannedStage&) -> std::optional<BaseFacts> {
    return BaseFacts{{"PATH=/x", "HERE=1"}, true, Platform{"linux", "", "arm64", ""}};
  };
  EXPECT_EQ(warnings("FROM a\nUSER $HERE\nCMD x", inputs),
            Words({"InvalidBaseImagePlatform: Base image a was pulled with platform \"linux/arm64\", expected "
                   "\"linux/amd64\" for current build (line 1)"}));
}

TEST(Checks, ObeysTheDirective) {
  const std::string body = "FROM a as x\nMAINTAINER me\n";
  EXPECT_EQ(warnings("# check=skip=all\n" + body), Words());
  EXPECT_EQ(warnings("# check=skip=FromAsCasing, MaintainerDeprecated\n" + body), Words());
  EXPECT_EQ(warnings("# check=skip=FromAsCasing\n" + body).size(), 1U);
  EXPECT_EQ(warnings("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER me\nMAINTAINER you\n").size(), 1U);
  const CheckResult result = run_checks("# check=skip=none;error=true\n" + body, standard());
  EXPECT_EQ(result.violation(), "lint violation found for rules: FromAsCasing, MaintainerDeprecated");
  EXPECT_EQ(result.warnings.at(0).url, "https://docs.docker.com/go/dockerfile/rule/from-as-casing/");
  EXPECT_EQ(run_checks("# check=error=true\nFROM a", standard()).violation(), "");
  CheckInputs inputs = standard();
  inputs.options = "skip=all";
  EXPECT_EQ(warnings(body, inputs), Words());
  EXPECT_EQ(run_checks("# check=foo=1\nFROM a", standard()).failure->message,
            "failed to parse check options: invalid check option \"foo\"");
  EXPECT_EQ(refusal([] { parse_check_options("skip"); }), "invalid check option \"skip\"");
  EXPECT_NE(refusal([] { parse_check_options("error=maybe"); }), "");
}

TEST(Checks, KeepsWhatItFoundBeforeAFailure) {
  const CheckResult result = run_checks("FROM a as x\nSTOPSIGNAL bad\nMAINTAINER me", standard());
  ASSERT_TRUE(result.failure);
  EXPECT_EQ(result.failure->message, "invalid signal: bad");
  EXPECT_EQ(result.failure->lines, (LineRange{2, 2}));
  EXPECT_EQ(result.warnings.size(), 2U);
  EXPECT_EQ(run_checks("", standard()).failure->message, "the Dockerfile cannot be empty");
  CheckInputs inputs = standard();
  inputs.target = "b";
  EXPECT_FALSE(run_checks("FROM x AS b\nFROM y\nSTOPSIGNAL bad", inputs).failure);
  EXPECT_EQ(check_rules().size(), 22U);
}

TEST(Checks, JudgesNames) {
  for (const char* good : {"a", "a:1", "a/b:1.2_x", "host.io:5000/a/b@sha256:0123456789abcdef0123456789abcdef",
                           "localhost/a", "a__b", "a---b", "UP.io/x"})
    EXPECT_TRUE(is_image_reference(good)) << good;
  for (const char* bad : {"", ":1", "a:", "A", "a/B", "a..b", "a_-b", "-a", "a@x", "a//b", "a:b:c", "a b"})
    EXPECT_FALSE(is_image_reference(bad)) << bad;
  for (const char* secret : {"PASSWORD", "db_password", "api_key", "GITHUB_TOKEN", "auth", "SECRET_x"})
    EXPECT_TRUE(names_secret(secret)) << secret;
  for (const char* open : {"PUBLIC_KEY", "TOKEN_FILE", "AUTH_VERSION", "monkey", "keyring", "author"})
    EXPECT_FALSE(names_secret(open)) << open;
}

}  // namespace
}  // namespace gantry::dockerfile
