#include "dockerfile/stages.hpp"

#include <gtest/gtest.h>

#include "dockerfile/test_support.hpp"

namespace gantry::dockerfile {
namespace {

using Indexes = std::vector<std::size_t>;

BuildPlan plan_of(const std::string& text, PlanOptions options = {}, std::map<std::string, std::string> args = {}) {
  const Dockerfile file = parse(text);
  ScopeInputs inputs;
  inputs.build_args = std::move(args);
  inputs.target_platform.architecture = inputs.build_platform.architecture = "amd64";
  inputs.target_stage = options.target;
  return BuildPlan(file, GlobalScope(file, inputs), std::move(options));
}

PlanOptions target(const std::string& name) {
  PlanOptions options;
  options.target = name;
  return options;
}

TEST(Stages, NeedsOnlyWhatTheTargetNeeds) {
  const std::string text =
      "FROM a AS base\nFROM b AS unused\nFROM base AS mid\nCOPY --from=tool /x /y\nFROM scratch AS last\n"
      "RUN --mount=from=mid,target=/m x\nCOPY --from=0 /a /b\n";
  // `tool` is no stage: an image.
  const BuildPlan plan = plan_of(text);
  EXPECT_EQ(plan.order(), Indexes({0, 2, 3}));
  EXPECT_EQ(plan.target().name, "last");
  EXPECT_EQ(plan.stages()[2].instructions[0].sources[0], (SourceRef{SourceKind::image, 0, "tool"}));
  EXPECT_EQ(plan.stages()[3].base.kind, SourceKind::scratch);
  EXPECT_EQ(plan_of(text, target("BASE")).order(), Indexes({0}));
  EXPECT_EQ(plan_of(text, target("1")).order(), Indexes({1}));
  PlanOptions all;
  all.all_stages = true;
  EXPECT_EQ(plan_of(text, all).order().size(), 4U);
}

TEST(Stages, ResolvesNames) {
  const BuildPlan plan = plan_of(
      "ARG v=1\nFROM img:$v AS x\nFROM --platform=$BUILDPLATFORM x\nFROM other AS X\nFROM x\nCOPY --from=1 a b\nCOPY c "
      "d\n");
  EXPECT_EQ(plan.stages()[0].base, (SourceRef{SourceKind::image, 0, "img:1"}));
  EXPECT_EQ(plan.stages()[1].base.stage, 0U);
  EXPECT_EQ(plan.stages()[1].platform, "linux/amd64");
  EXPECT_EQ(plan.stages()[1].name, "stage-1");
  EXPECT_EQ(plan.stages()[3].base.stage, 2U) << "the later stage of a name shadows the earlier";
  EXPECT_EQ(plan.stages()[3].instructions[0].sources[0].stage, 1U);
  EXPECT_EQ(plan.stages()[3].instructions[1].sources[0].kind, SourceKind::build_context);
  EXPECT_EQ(plan_of("FROM build-${TARGETOS}").stages()[0].base_name, "build-linux");
  EXPECT_EQ(plan_of("ARG t=no\nFROM b:$t", {}, {{"t", "yes"}}).stages()[0].base_name, "b:yes");
}

TEST(Stages, PrefersNamedContexts) {
  PlanOptions options;
  options.is_named_context = [](const std::string& name) { return name == "base" || name == "img" || name == "src"; };
  const BuildPlan plan = plan_of(
      "FROM a AS base\nRUN x\nFROM img\nCOPY --from=src a b\nRUN --mount=from=base,target=/x y\nFROM scratch", options);
  EXPECT_EQ(plan.stages()[0].base.kind, SourceKind::named_context);
  EXPECT_TRUE(plan.stages()[0].instructions.empty()) << "a context replaces the whole stage";
  EXPECT_EQ(plan.stages()[1].base.kind, SourceKind::named_context);
  EXPECT_EQ(plan.stages()[1].instructions[0].sources[0].kind, SourceKind::named_context);
  EXPECT_EQ(plan.stages()[1].instructions[1].sources[0].kind, SourceKind::stage);
}

TEST(Stages, RefusesInBuildKitsWords) {
  struct Case {
    const char* text;
    const char* target;
    const char* reason;
  };
  const Case cases[] = {
      {"FROM ${x}", "", "base name (${x}) should not be blank"},
      {"FROM --platform=$x a", "", "empty platform value from expression $x"},
      {"FROM a AS build", "bulid", "target stage \"bulid\" could not be found (did you mean build?)"},
      {"FROM a", "1", "target stage \"1\" could not be found"},
      {"FROM a\nCOPY --from=7 x y", "", "invalid stage index 7"},
      {"FROM a AS x\nCOPY --from=x a b", "", "circular dependency detected on stage: x"},
      {"FROM a AS x\nCOPY --from=y a b\nFROM x AS y", "", "circular dependency detected on stage: x"},
      {"FROM a AS x\nCOPY --from=y a b\nFROM b AS y", "x",
       "cannot copy from stage \"y\", it needs to be defined before current stage \"x\""},
      {"FROM a AS x\nRUN --mount=from=y,target=/z a\nFROM b AS y", "x",
       "cannot mount from stage \"y\" to \"/z\", stage needs to be defined before current command"},
      {"FROM a\nCOPY --from=$x a b", "",
       "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a "
       "workaround"},
  };
  for (const Case& c : cases) EXPECT_EQ(refusal([&] { plan_of(c.text, target(c.target)); }), c.reason) << c.text;
  EXPECT_EQ(plan_of("FROM a AS x\nCOPY --from=y a b\nFROM b AS y").order(), Indexes({1}))
      << "what the target does not need may be wrong";
}

TEST(Stages, RunsTriggersOfStagesOnce) {
  const BuildPlan plan = plan_of(
      "FROM t AS tool\nFROM a AS base\nONBUILD COPY --from=tool x y\nONBUILD RUN z\nFROM base AS child\nRUN own\n"
      "FROM child\n");
  EXPECT_EQ(plan.order(), Indexes({0, 1, 2, 3}));
  const PlannedStage& child = plan.stages()[2];
  ASSERT_EQ(child.instructions.size(), 3U);
  EXPECT_TRUE(child.instructions[0].on_build && child.instructions[1].on_build && !child.instructions[2].on_build);
  EXPECT_EQ(child.instructions[0].sources[0].kind, SourceKind::stage);
  EXPECT_EQ(child.instructions[0].instruction.lines, child.lines);
  EXPECT_TRUE(plan.stages()[3].instructions.empty());
}

TEST(Stages, TakesTriggersOfImages) {
  BuildPlan plan = plan_of("FROM t AS tool\nFROM u AS other\nFROM a AS last\nRUN own");
  EXPECT_EQ(plan.order(), Indexes({2}));
  EXPECT_TRUE(plan.add_triggers(2, {"RUN --mount=from=tool,target=/x y", "ENV a=b"}));
  EXPECT_EQ(plan.order(), Indexes({0, 2}));
  EXPECT_EQ(plan.stages()[2].instructions.size(), 3U);
  EXPECT_FALSE(plan.add_triggers(2, {"COPY --from=other a b"})) << "once for each stage";
  EXPECT_FALSE(plan.add_triggers(0, {"RUN x"}));
  EXPECT_EQ(refusal([] {
              BuildPlan bad = plan_of("FROM a");
              bad.add_triggers(0, {"RUN a\nRUN b"});
            }),
            "onbuild trigger should be a single expression");
}

}  // namespace
}  // namespace gantry::dockerfile
