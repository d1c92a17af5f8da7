#include "frontend/frontend.hpp"

#include <gtest/gtest.h>

#include "base/text.hpp"
#include "frontend/fake_resolver.hpp"
#include "json/json.hpp"
#include "llb/graph.hpp"

namespace gantry::frontend {
namespace {

FakeResolver world(const std::string& dockerfile) {
  FakeResolver out;
  out.files["/Dockerfile"] = dockerfile;
  out.images["docker.io/library/busybox:latest"] = kBusyboxConfig;
  return out;
}

OptionMap amd64(OptionMap options = {}) {
  options.emplace("platform", "linux/amd64");
  return options;
}

struct Built {
  FrontendResult result;
  FakeResolver resolver;
  std::vector<pb::Op> ops;
  std::vector<std::string> names;
  json::Value config;

  /// The first op whose name contains the text.
  const pb::Op& op(const std::string& name) const {
    for (std::size_t i = 0; i < ops.size(); ++i)
      if (names[i].find(name) != std::string::npos) return ops[i];
    ADD_FAILURE() << "no op named " << name;
    return ops.front();
  }
  std::vector<std::string> history() const {
    std::vector<std::string> out;
    for (const auto& one : config.at("history").as_array())
      out.push_back(std::string(one.at("created_by").as_string()) +
                    (one.as_object().contains("empty_layer") ? "" : " *"));
    return out;
  }
  std::string setting(const char* name) const {
    const auto* value = config.at("config").as_object().if_contains(name);
    return value == nullptr ? "" : json::render(*value);
  }
};

Built build(const std::string& dockerfile, const OptionMap& options = {}, FakeResolver* given = nullptr) {
  Built out;
  out.resolver = given == nullptr ? world(dockerfile) : *given;
  out.resolver.files["/Dockerfile"] = dockerfile;
  out.result = build_dockerfile(amd64(options), out.resolver);
  const auto& platform = out.result.platforms.at(0);
  for (int i = 0; i + 1 < platform.definition.def_size(); ++i) {
    pb::Op op;
    EXPECT_TRUE(op.ParseFromString(platform.definition.def(i)));
    const auto& metadata = platform.definition.metadata().at(llb::op_digest(platform.definition.def(i)));
    const auto name = metadata.description().find("llb.customname");
    out.names.push_back(name == metadata.description().end() ? "" : name->second);
    out.ops.push_back(std::move(op));
  }
  out.config = json::parse(platform.config);
  return out;
}

std::string failure(const std::string& dockerfile, const OptionMap& options = {}) {
  try {
    build(dockerfile, options);
  } catch (const Error& e) {
    return e.message();
  }
  return "no failure";
}

TEST(Frontend, NamesStepsAsBuildKitDoes) {
  const Built b = build("FROM busybox\nRUN echo hi\nCOPY a /b\nWORKDIR /w\n");
  EXPECT_EQ(b.names, (std::vector<std::string>{
                         "[1/4] FROM docker.io/library/busybox:latest@sha256:" + std::string(64, 'a'),
                         "[2/4] RUN echo hi", "[internal] load build context", "[3/4] COPY a /b", "[4/4] WORKDIR /w"}));
}

TEST(Frontend, NamesStagesAndLeavesOutWhatIsNotNeeded) {
  const Built b = build(
      "FROM busybox AS base\nRUN echo base > base\nFROM nosuch AS unused\nRUN false\n"
      "FROM scratch\nCOPY --from=base --chmod=0644 /out /out\n");
  EXPECT_EQ(b.names.back(), "[stage-2 1/1] COPY --from=base --chmod=0644 /out /out");
  EXPECT_EQ(b.names[1], "[base 2/2] RUN echo base > base");
  EXPECT_EQ(b.resolver.resolved,
            std::vector<std::string>{"[internal] load metadata for docker.io/library/busybox:latest"});
}

TEST(Frontend, FillsVariablesIntoNames) {
  const Built b = build("FROM busybox\nENV A=x\nCOPY $A /${A}/\nRUN echo $A $B\n");
  EXPECT_EQ(b.names[2], "[2/3] COPY x /x/");
  EXPECT_EQ(b.names[3], "[3/3] RUN echo x $B");
}

TEST(Frontend, WritesHistoryAsBuildKitDoes) {
  const Built b = build(
      "FROM busybox\nMAINTAINER me <me@x>\nLABEL k1=v1 \"k 2\"=\"v 2\"\nENV A=1 B=\"two words\"\nARG X=xx\nARG Y\n"
      "WORKDIR rel\nUSER 1000:1000\nEXPOSE 9000-9001 80\nVOLUME /v1 /v2\nSTOPSIGNAL SIGINT\n"
      "RUN echo $X\nCOPY --chown=1:2 y.txt /c\nCMD [\"a\",\"b\"]\nENTRYPOINT [\"/e\"]\n"
      "HEALTHCHECK --interval=5s --retries=2 CMD curl x\nSHELL [\"/bin/ash\",\"-c\"]\n");
  EXPECT_EQ(
      b.history(),
      (std::vector<std::string>{
          "base *", "MAINTAINER me <me@x>", "LABEL k1=v1 k 2=v 2", "ENV A=1 B=two words", "ARG X=xx", "ARG Y",
          "WORKDIR /rel *", "USER 1000:1000", "EXPOSE [80/tcp 9000/tcp 9001/tcp]", "VOLUME [/v1 /v2]",
          "STOPSIGNAL SIGINT", "RUN |2 X=xx Y= /bin/sh -c echo $X # buildkit *",
          "COPY --chown=1:2 y.txt /c # buildkit *", "CMD [\"a\" \"b\"]", "ENTRYPOINT [\"/e\"]",
          "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
          "SHELL [/bin/ash -c]"}));
}

TEST(Frontend, SetsTheConfig) {
  const Built b = build(
      "FROM busybox\nCMD [\"test\"]\nSHELL [\"ls\"]\nENTRYPOINT my entrypoint\nENV PATH=/x:$PATH\nLABEL a=b\n"
      "EXPOSE 80 53/udp\nVOLUME /data\nONBUILD RUN x\n",
      {{"label:a", "c"}});
  EXPECT_EQ(b.setting("Cmd"), "[\"test\"]");
  EXPECT_EQ(b.setting("Entrypoint"), "[\"ls\",\"my entrypoint\"]");
  EXPECT_EQ(b.setting("Env"), "[\"PATH=/x:/bin\"]");
  EXPECT_EQ(b.setting("Labels"), "{\"a\":\"c\"}");
  EXPECT_EQ(b.setting("ExposedPorts"), "{\"53/udp\":{},\"80/tcp\":{}}");
  EXPECT_EQ(b.setting("OnBuild"), "[\"RUN x\"]");
  EXPECT_EQ(build("FROM busybox\nSHELL [\"ls\"]\nENTRYPOINT my entrypoint\n").setting("Cmd"), "");
}

TEST(Frontend, ScratchHasAPathAndNoOps) {
  const Built b = build("FROM scratch\nENTRYPOINT foo bar\n");
  EXPECT_EQ(b.result.platforms[0].definition.def_size(), 0);
  EXPECT_EQ(b.setting("Entrypoint"), "[\"/bin/sh\",\"-c\",\"foo bar\"]");
  EXPECT_EQ(b.setting("Env"), "[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]");
}

TEST(Frontend, TakesOfTheContextOnlyWhatIsUsed) {
  FakeResolver resolver = world("");
  resolver.files["/.dockerignore"] = "*.log\n";
  const Built b = build("FROM scratch\nCOPY a.txt d/e /x/\n", {}, &resolver);
  const auto& attributes = b.op("load build context").source().attrs();
  EXPECT_EQ(attributes.at("local.followpaths"), "[\"a.txt\",\"d/e\"]");
  EXPECT_EQ(attributes.at("local.excludepatterns"), "[\"*.log\"]");
  const Built all = build("FROM scratch\nCOPY . /\nCOPY a /b\n");
  EXPECT_EQ(all.op("load build context").source().attrs().count("local.followpaths"), 0u);
}

TEST(Frontend, CopiesSeveralSourcesInOneOp) {
  const Built b = build("FROM busybox\nWORKDIR /w\nCOPY --chown=user:1 a b* d/\n");
  const auto& op = b.op("COPY");
  ASSERT_EQ(op.file().actions_size(), 2);
  const auto& first = op.file().actions(0);
  const auto& second = op.file().actions(1);
  EXPECT_EQ(first.input(), 0);
  EXPECT_EQ(first.secondary_input(), 1);
  EXPECT_EQ(first.output(), -1);
  EXPECT_EQ(second.input(), 2);
  EXPECT_EQ(second.output(), 0);
  EXPECT_EQ(second.copy().src(), "/b*");
  EXPECT_EQ(second.copy().dest(), "/w/d/");
  EXPECT_TRUE(second.copy().allow_wildcard());
  EXPECT_EQ(second.copy().owner().user().by_name().name(), "user");
  EXPECT_EQ(second.copy().owner().group().by_id(), 1u);
}

TEST(Frontend, AddsArchivesAddressesAndRepositories) {
  const Built b = build("FROM scratch\nADD x.tar /\nADD --checksum=sha256:" + std::string(64, '1') +
                        " https://h/a/f.txt?x=1 /dl/\n"
                        "ADD https://h/r.git#v1:sub /src\n");
  EXPECT_TRUE(b.op("ADD x.tar").file().actions(0).copy().attempt_unpack());
  const pb::Op& http = b.ops[2];
  EXPECT_EQ(http.source().identifier(), "https://h/a/f.txt?x=1");
  EXPECT_EQ(http.source().attrs().at("http.filename"), "f.txt");
  const pb::Op& git = b.ops[4];
  EXPECT_EQ(git.source().identifier(), "git://h/r.git#v1:sub");
  EXPECT_EQ(git.source().attrs().at("git.fullurl"), "https://h/r.git");
  EXPECT_EQ(failure("FROM scratch\nCOPY https://h/f /\n"), "source can't be a URL for COPY");
}

TEST(Frontend, GivesRunItsMounts) {
  const Built b = build(
      "FROM busybox\nWORKDIR /w\nRUN --mount=target=ctx,source=src --mount=type=cache,target=/c,mode=0700,uid=5 "
      "--mount=type=tmpfs,target=/t,size=4096 --mount=type=secret,id=k,env=K --mount=type=secret,id=s "
      "--mount=type=ssh --network=none true\n",
      {{"shm-size", "1024"}, {"add-hosts", "h=1.2.3.4"}, {"ulimit", "nofile=10:20"}, {"hostname", "n"}});
  const auto& exec = b.op("RUN").exec();
  EXPECT_EQ(exec.mounts(0).dest(), "/");
  EXPECT_EQ(exec.mounts(1).dest(), "/w/ctx");
  EXPECT_EQ(exec.mounts(1).selector(), "/src");
  EXPECT_TRUE(exec.mounts(1).readonly());
  EXPECT_EQ(exec.mounts(2).cache_opt().id(), "//c");
  EXPECT_EQ(exec.mounts(2).selector(), "/cache");
  EXPECT_EQ(exec.mounts(3).tmpfs_opt().size(), 4096);
  EXPECT_EQ(exec.secretenv(0).name(), "K");
  EXPECT_EQ(exec.mounts(4).dest(), "/run/secrets/s");
  EXPECT_EQ(exec.mounts(5).dest(), "/run/buildkit/ssh_agent.0");
  EXPECT_EQ(exec.mounts(6).tmpfs_opt().size(), 1024);
  EXPECT_EQ(exec.network(), pb::NET_NONE);
  EXPECT_EQ(exec.meta().extra_hosts(0).ip(), "1.2.3.4");
  EXPECT_EQ(exec.meta().ulimit(0).hard(), 20);
  EXPECT_EQ(exec.meta().hostname(), "n");
  EXPECT_EQ(exec.meta().env(exec.meta().env_size() - 1), "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0");
}

TEST(Frontend, ShowsSecretsMasked) {
  const Built b = build("FROM busybox\nRUN --mount=type=secret,id=t,env=TOKEN echo $TOKEN\n");
  EXPECT_NE(b.names.back().find("echo ****"), std::string::npos) << b.names.back();
}

TEST(Frontend, RunsScriptsOfHeredocs) {
  const Built b = build("FROM busybox\nRUN <<EOF\necho a\necho b\nEOF\nRUN <<EOF\n#!/bin/x\ny\nEOF\n");
  EXPECT_EQ(b.names[1], "[2/3] RUN <<EOF (echo a...)");
  EXPECT_EQ(b.ops[1].exec().meta().args(2), "echo a\necho b\n");
  EXPECT_EQ(b.ops.back().exec().mounts(1).dest(), "/dev/pipes/");
  EXPECT_EQ(b.names[2], "[internal] preparing inline document");
}

TEST(Frontend, RunsTriggersOfTheBase) {
  FakeResolver resolver = world("");
  resolver.images["docker.io/library/trigger:latest"] =
      R"({"architecture":"amd64","os":"linux","config":{"OnBuild":["RUN touch x","COPY --from=busybox /a /b"]},)"
      R"("rootfs":{"type":"layers","diff_ids":[]}})";
  const Built b = build("FROM trigger\nRUN y\n", {}, &resolver);
  EXPECT_EQ(b.names[1], "[2/4] ONBUILD RUN touch x");
  EXPECT_EQ(b.names.back(), "[4/4] RUN y");
  EXPECT_EQ(b.setting("OnBuild"), "");
}

TEST(Frontend, UsesNamedContexts) {
  const Built b = build("FROM base\nCOPY --from=other f /\n",
                        {{"context:base", "docker-image://busybox"}, {"context:other", "local:dir"}});
  EXPECT_EQ(b.ops[0].source().identifier(),
            "docker-image://docker.io/library/busybox:latest@sha256:" + std::string(64, 'a'));
  EXPECT_EQ(b.names[1], "[context dir] load from client");
  EXPECT_EQ(b.ops[1].source().attrs().at("local.followpaths"), "[\"f\"]");
}

TEST(Frontend, TakesInputsByteForByte) {
  const Built first = build("FROM busybox\nRUN one\n");
  FakeResolver resolver = world("");
  resolver.inputs["0-one"] = first.result.platforms[0].definition;
  json::Object metadata;
  metadata["containerimage.config"] = base64_encode(first.result.platforms[0].config);
  const Built second =
      build("FROM one\nRUN two\n", {{"context:one", "input:0-one"}, {"input-metadata:0-one", json::render(metadata)}},
            &resolver);
  EXPECT_EQ(second.result.platforms[0].definition.def(1), first.result.platforms[0].definition.def(1));
  EXPECT_EQ(second.history().size(), 3u);
}

TEST(Frontend, NoCacheIsPerStage) {
  const Built b = build("FROM busybox AS a\nRUN one\nFROM a AS b\nRUN two\n", {{"no-cache", "b"}});
  const auto ignored = [&](const std::string& name) {
    for (const auto& [digest, metadata] : b.result.platforms[0].definition.metadata())
      if (auto it = metadata.description().find("llb.customname");
          it != metadata.description().end() && it->second.find(name) != std::string::npos)
        return metadata.ignore_cache();
    return false;
  };
  EXPECT_FALSE(ignored("RUN one"));
  EXPECT_TRUE(ignored("RUN two"));
}

TEST(Frontend, TheSameBuildGivesTheSameBytes) {
  const std::string file = "FROM busybox\nENV A=1\nCOPY a b c/\nRUN --mount=target=/x true\n";
  EXPECT_EQ(build(file).result.platforms[0].definition.SerializeAsString().size(),
            build(file).result.platforms[0].definition.SerializeAsString().size());
  EXPECT_EQ(build(file).result.platforms[0].config, build(file).result.platforms[0].config);
  const auto one = build(file).result.platforms[0].definition;
  const auto other = build(file).result.platforms[0].definition;
  for (int i = 0; i < one.def_size(); ++i) EXPECT_EQ(one.def(i), other.def(i));
}

TEST(Frontend, ErrorsHaveDockersTexts) {
  EXPECT_EQ(failure("FROM nosuch\n"),
            "nosuch: failed to resolve source metadata for docker.io/library/nosuch:latest: not found");
  EXPECT_EQ(failure("FROM busybox\nCOPY --from=later a b\nFROM busybox AS later\n", {{"target", "0"}}).substr(0, 30),
            "cannot copy from stage \"later\"");
  EXPECT_EQ(failure("FROM busybox AS build\n", {{"target", "bulid"}}),
            "target stage \"bulid\" could not be found (did you mean build?)");
  EXPECT_EQ(failure("FROM busybox\nRUN --mount=type=tmp,target=/x true\n"),
            "unsupported mount type \"tmp\" (did you mean tmpfs?)");
  FakeResolver nothing;
  EXPECT_THROW(build_dockerfile(amd64(), nothing), Error);
  EXPECT_EQ(failure("# syntax=example.com/own\nFROM scratch\n").substr(0, 37), "frontend example.com/own not supporte");
}

TEST(Frontend, OwnSyntaxIsBuiltIn) {
  for (const char* one :
       {"docker/dockerfile:1", "docker.io/docker/dockerfile:1.7-labs", "docker/dockerfile-upstream:master"})
    EXPECT_TRUE(is_own_syntax(one)) << one;
  EXPECT_FALSE(is_own_syntax("someone/dockerfile"));
}

TEST(Frontend, AnswersRequests) {
  FakeResolver resolver = world(
      "# check=skip=none\nARG V=1\n# base the base\nFROM busybox AS base\nARG W\nRUN --mount=type=secret,id=s,required "
      "true\n");
  const auto targets = build_dockerfile(amd64({{"requestid", "frontend.targets"}}), resolver);
  EXPECT_NE(targets.metadata.at("result.json").find("\"name\":\"base\",\"default\":true"), std::string::npos);
  const auto outline = build_dockerfile(amd64({{"requestid", "frontend.outline"}}), resolver);
  EXPECT_NE(outline.metadata.at("result.json").find("\"secrets\":[{\"name\":\"s\",\"required\":true"),
            std::string::npos);
  resolver.files["/Dockerfile"] = "from busybox as X\n";
  const auto lint = build_dockerfile(amd64({{"requestid", "frontend.lint"}}), resolver);
  EXPECT_EQ(lint.metadata.at("result.statuscode"), "1");
  EXPECT_NE(lint.metadata.at("result.json").find("StageNameCasing"), std::string::npos);
  try {
    build_dockerfile(amd64({{"requestid", "frontend.nosuch"}}), resolver);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "unsupported request frontend.nosuch");
  }
}

TEST(Frontend, WarnsOfWhatChecksFind) {
  FakeResolver resolver = world("FROM busybox\nENV A b\n");
  build_dockerfile(amd64(), resolver);
  ASSERT_EQ(resolver.warnings.size(), 1u);
  EXPECT_EQ(resolver.warnings[0].substr(0, 20), "LegacyKeyValueFormat");
}

}  // namespace
}  // namespace gantry::frontend
