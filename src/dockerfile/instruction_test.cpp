#include <gtest/gtest.h>

#include "dockerfile/dockerfile.hpp"
#include "dockerfile/expand_instruction.hpp"
#include "dockerfile/mount.hpp"
#include "dockerfile/test_support.hpp"
#include "dockerfile/values.hpp"

namespace gantry::dockerfile {
namespace {

using Words = std::vector<std::string>;
using std::chrono::milliseconds;

/// The instruction that follows a FROM.
Instruction instruction_of(const std::string& text) { return parse("FROM a\n" + text).stages.at(0).instructions.at(0); }

template <class Body>
Body body_of(const std::string& text) {
  return std::get<Body>(instruction_of(text).body);
}

TEST(Instruction, RefusesWithTheLineAndBuildKitsWords) {
  struct Case {
    const char* text;
    const char* reason;
  };
  const Case cases[] = {
      {"FNTRYPOINT [\"x\"]", "unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)"},
      {"rum x", "unknown instruction: rum (did you mean run?)"},
      {"BAD", "unknown instruction: BAD (did you mean ADD?)"},
      {"INCLUDE x", "unknown instruction: INCLUDE"},
      {"\xff", "unknown instruction: \xEF\xBF\xBD"},
      {"COPY a",
       "COPY requires at least two arguments, but only one was provided. Destination could not be determined"},
      {"ADD a", "ADD requires at least two arguments, but only one was provided. Destination could not be determined"},
      {"COPY --form=x a b", "unknown flag: --form (did you mean from?)"},
      {"COPY --chown=a --chown=b a b", "duplicate flag specified: chown"},
      {"COPY --from a b", "missing a value on flag: from"},
      {"COPY --link=x a b", "expecting boolean value for flag link, not: x"},
      {"COPY --link= a b", "missing a value on flag: link"},
      {"COPY --checksum=x a b", "unknown flag: --checksum"},
      {"ADD --from=x a b", "unknown flag: --from"},
      {"COPY a <<EOF", "COPY cannot accept a heredoc as a destination"},
      {"RUN --network=x y", "unsupported network mode \"x\""},
      {"RUN --security=x y", "unsupported security mode \"x\""},
      {"RUN --mount=from=$x,target=/a y", "'from' doesn't support variable expansion, define alias stage instead"},
      {"ENV", "ENV requires at least one argument"},
      {"ENV =x", "ENV names can not be blank"},
      {"ARG =x", "ARG names can not be blank"},
      {"ARG", "ARG requires at least one argument"},
      {"LABEL --x a=b", "unknown flag: --x"},
      {"WORKDIR", "WORKDIR requires exactly one argument"},
      {"USER", "USER requires exactly one argument"},
      {"STOPSIGNAL", "STOPSIGNAL requires exactly one argument"},
      {"EXPOSE", "EXPOSE requires at least one argument"},
      {"VOLUME", "VOLUME requires at least one argument"},
      {"VOLUME [\" \"]", "VOLUME specified can not be an empty string"},
      {"SHELL sh -c", "SHELL requires the arguments to be in JSON form"},
      {"SHELL []", "SHELL requires at least one argument"},
      {"HEALTHCHECK", "HEALTHCHECK requires at least one argument"},
      {"HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"},
      {"HEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"},
      {"HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"},
      {"HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"},
      {"HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"},
      {"HEALTHCHECK --timeout=5 CMD x", "time: missing unit in duration \"5\""},
      {"ONBUILD", "ONBUILD requires at least one argument"},
      {"ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"},
      {"ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"},
      {"ONBUILD maintainer x", "MAINTAINER isn't allowed as an ONBUILD trigger"},
      {"FROM a b", "FROM requires either one or three arguments"},
      {"FROM a AS 1x", "invalid name for build stage: \"1x\", name can't start with a number or contain symbols"},
      {"FROM --platfrom=x a", "unknown flag: --platfrom (did you mean platform?)"},
  };
  for (const Case& c : cases) {
    std::string text = std::string("FROM a\n") + c.text;
    if (std::string_view(c.text).ends_with("EOF")) text += "\nEOF";
    EXPECT_EQ(refusal([&] { parse(text); }), std::string("dockerfile parse error on line 2: ") + c.reason) << c.text;
  }
}

TEST(Instruction, NeedsAStage) {
  EXPECT_EQ(refusal([] { parse("RUN x"); }), "no build stage in current context");
  EXPECT_EQ(refusal([] { parse("ARG a=b"); }), "dockerfile contains no stages to build");
  const Dockerfile file = parse("ARG a\nFROM --platform=$P x AS Base\nRUN y\nFROM z\n");
  EXPECT_EQ(file.global_args.size(), 1U);
  ASSERT_EQ(file.stages.size(), 2U);
  EXPECT_EQ(file.stages[0].name, "base");
  EXPECT_EQ(file.stages[0].written_name, "Base");
  EXPECT_EQ(file.stages[0].platform, "$P");
  EXPECT_EQ(file.stages[0].instructions.size(), 1U);
  EXPECT_EQ(file.stages[1].base_name, "z");
}

TEST(Instruction, ReadsRun) {
  const auto run = body_of<RunInstruction>(
      "RUN --mount=type=cache,from=base,target=/x --mount=target=/y --network=none --security=insecure --device=v/c=d "
      "make all");
  EXPECT_EQ(run.command.words, Words({"make all"}));
  EXPECT_TRUE(run.command.shell);
  ASSERT_EQ(run.mounts.size(), 2U);
  EXPECT_EQ(run.mounts[0].from, "base");
  EXPECT_EQ(run.mounts[1].from, "");
  EXPECT_EQ(run.network, RunNetwork::none);
  EXPECT_EQ(run.security, RunSecurity::insecure);
  EXPECT_EQ(run.devices.at(0).name, "v/c=d");
  EXPECT_EQ(run.flags_used, Words({"mount", "network", "security", "device"}));
  EXPECT_FALSE(body_of<RunInstruction>("RUN [\"a\"]").command.shell);
  EXPECT_EQ(body_of<RunInstruction>("RUN cat <<A\nx\nA").heredocs.at(0).content, "x\n");
}

TEST(Instruction, ReadsCopyAndAdd) {
  const auto copy = body_of<CopyInstruction>(
      "COPY --from=b --chown=1:2 --chmod=0755 --link --parents --exclude=*.o --exclude=x a <<-F /d/\n\tt\n\tF");
  EXPECT_EQ(copy.sources, Words({"a"}));
  EXPECT_EQ(copy.destination, "/d/");
  EXPECT_EQ(copy.inline_files.at(0).content, "t\n");
  EXPECT_EQ(copy.from, "b");
  EXPECT_EQ(copy.excludes, Words({"*.o", "x"}));
  EXPECT_TRUE(copy.link && copy.parents && !copy.add);
  const auto add = body_of<CopyInstruction>("ADD --keep-git-dir=false --unpack --checksum=sha256:x https://x/y /z");
  EXPECT_EQ(add.keep_git_dir, false);
  EXPECT_EQ(add.unpack, true);
  EXPECT_EQ(add.checksum, "sha256:x");
  EXPECT_TRUE(add.add);
}

TEST(Instruction, ReadsTheOthers) {
  const auto health = body_of<HealthcheckInstruction>(
      "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0 --start-interval=5ms --retries=3 CMD curl x");
  EXPECT_EQ(health.test, Words({"CMD-SHELL", "curl x"}));
  EXPECT_EQ(health.interval, std::chrono::seconds(90));
  EXPECT_EQ(health.timeout, milliseconds(1500));
  EXPECT_EQ(health.start_period.count(), 0);
  EXPECT_EQ(health.start_interval, milliseconds(5));
  EXPECT_EQ(health.retries, 3);
  EXPECT_EQ(body_of<HealthcheckInstruction>("HEALTHCHECK CMD [\"a\",\"b\"]").test, Words({"CMD", "a", "b"}));
  EXPECT_EQ(body_of<HealthcheckInstruction>("HEALTHCHECK none").test, Words({"NONE"}));
  EXPECT_EQ(body_of<ExposeInstruction>("EXPOSE 80 443/udp 100").ports, Words({"100", "443/udp", "80"}));
  EXPECT_EQ(body_of<ShellInstruction>("SHELL [\"a\", \"-c\"]").shell, Words({"a", "-c"}));
  EXPECT_EQ(body_of<OnbuildInstruction>("onbuild  RUN <<E\nx\nE").expression, "RUN <<E\nx\nE");
  const auto arg = body_of<ArgInstruction>("# a what it is for\nARG a b=1 c=");
  EXPECT_EQ(arg.args.at(0).description, "what it is for");
  EXPECT_FALSE(arg.args.at(0).value);
  EXPECT_EQ(arg.args.at(1).value, "1");
  EXPECT_EQ(arg.args.at(2).value, "");
  EXPECT_EQ(instruction_of("  run x ").source, "run x");
  EXPECT_EQ(parse("# base the first\nFROM x AS base").stages[0].description, "the first");
}

TEST(Instruction, ExpandsTheWordsThatExpand) {
  const Environment env = Environment::from_list({"A=1", "P=3000 4000/udp", "D=/x", "E="});
  const auto expanded = [&](const std::string& text) {
    return expand_instruction(instruction_of(text), env, '\\').body;
  };
  EXPECT_EQ(std::get<EnvInstruction>(expanded("ENV A=2 b=$A $A=\"c d\"")).variables,
            (std::vector<KeyValue>{{"A", "2"}, {"b", "1"}, {"1", "c d"}}));
  EXPECT_EQ(std::get<EnvInstruction>(expanded("ENV A $A and 'more'")).variables,
            (std::vector<KeyValue>{{"A", "1 and more", true}}));
  EXPECT_EQ(std::get<ExposeInstruction>(expanded("EXPOSE $P 80")).ports, Words({"3000", "4000/udp", "80"}));
  EXPECT_EQ(std::get<WorkdirInstruction>(expanded("WORKDIR $D/y")).path, "/x/y");
  EXPECT_EQ(std::get<UserInstruction>(expanded("USER ${A}:2")).user, "1:2");
  EXPECT_EQ(std::get<StopSignalInstruction>(expanded("STOPSIGNAL $A")).signal, "1");
  EXPECT_EQ(std::get<VolumeInstruction>(expanded("VOLUME $D /z")).paths, Words({"/x", "/z"}));
  EXPECT_EQ(std::get<LabelInstruction>(expanded("LABEL $A=$D")).labels, (std::vector<KeyValue>{{"1", "/x"}}));
  const auto copy = std::get<CopyInstruction>(
      expanded("COPY --chown=$A --chmod=$A --exclude=$D $D <<X <<'Y' $D/\n'$A' \\$A\nX\n$A\nY"));
  EXPECT_EQ(copy.chown + copy.chmod + copy.excludes.at(0) + copy.sources.at(0) + copy.destination, "11/x/x/x/");
  EXPECT_EQ(copy.inline_files.at(0).content, "'1' $A\n");
  EXPECT_EQ(copy.inline_files.at(1).content, "$A\n");
  for (const char* verbatim : {"RUN echo $A", "CMD $A", "ENTRYPOINT $A"})
    EXPECT_EQ(std::visit([](const auto& body) { return sizeof(body); }, expanded(verbatim)) > 0, true);
  EXPECT_EQ(std::get<RunInstruction>(expanded("RUN echo $A")).command.words, Words({"echo $A"}));
  EXPECT_EQ(std::get<HealthcheckInstruction>(expanded("HEALTHCHECK CMD $A")).test.at(1), "$A");
  EXPECT_EQ(std::get<ArgInstruction>(expanded("ARG x=$A")).args.at(0).value, "$A");
  std::set<std::string> unmatched;
  expand_instruction(instruction_of("ENV x=$MISSING"), env, '\\', &unmatched);
  EXPECT_EQ(unmatched, std::set<std::string>{"MISSING"});
  EXPECT_EQ(refusal([&] { expanded("VOLUME $E"); }), "VOLUME specified can not be an empty string");
  EXPECT_EQ(refusal([&] { expanded("USER ${A"); }), "failed to process \"${A\": syntax error: missing '}'");
}

TEST(Instruction, BoundsWhatOneInstructionExpandsTo) {
  Environment env;
  env.set("a", std::string(1024 * 1024, 'a'));
  std::string text = "ENV";
  for (int i = 0; i < 20; ++i) text += " b" + std::to_string(i) + "=$a";
  EXPECT_EQ(refusal([&] { expand_instruction(instruction_of(text), env, '\\'); }), "the expanded text is too long");
}

TEST(Mount, ReadsEveryOption) {
  const ExpandWord same = [](std::string_view word) { return std::string(word); };
  const Mount bind = parse_mount("type=bind,from=a,src=/s,dst=/t,rw", same);
  EXPECT_EQ(bind.from + bind.source + bind.target, "a/s/t");
  EXPECT_FALSE(bind.read_only);
  EXPECT_TRUE(parse_mount("target=/x", same).read_only);
  const Mount cache = parse_mount("TYPE=Cache,id=i,target=/c,sharing=Locked,mode=0700,uid=1,gid=2", same);
  EXPECT_EQ(cache.type, MountType::cache);
  EXPECT_EQ(cache.sharing, MountSharing::locked);
  EXPECT_EQ(cache.mode, 0700U);
  EXPECT_FALSE(cache.read_only);
  EXPECT_TRUE(parse_mount("type=cache,target=/c,ro", same).read_only);
  EXPECT_FALSE(parse_mount("type=cache,target=/c,readwrite=true", same).read_only);
  EXPECT_EQ(parse_mount("type=tmpfs,target=/c,size=131072k", same).size, 131072 * 1024);
  const Mount secret = parse_mount("type=secret,id=s,env=TOKEN,required,mode=0400", same);
  EXPECT_EQ(secret.env, "TOKEN");
  EXPECT_TRUE(secret.required);
  EXPECT_TRUE(parse_mount("type=ssh,required=1", same).required);
  EXPECT_EQ(parse_mount("\"target=/a,b\"", same).target, "/a,b");
  EXPECT_EQ(parse_mount("type=$T,target=/x",
                        [](std::string_view w) { return w == "$T" ? std::string("cache") : std::string(w); })
                .type,
            MountType::cache);
}

TEST(Mount, RefusesInBuildKitsWords) {
  struct Case {
    const char* text;
    const char* reason;
  };
  const Case cases[] = {
      {"typ=x", "unexpected key 'typ' in 'typ=x' (did you mean type?)"},
      {"type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"},
      {"type=bind,x", "invalid field 'x' must be a key=value pair"},
      {"size=1m,target=/x", "unexpected key 'size' for mount type 'bind'"},
      {"required,target=/x", "unexpected key 'required' for mount type 'bind'"},
      {"type=cache,mode=9", "invalid value 9 for mode"},
      {"type=cache,uid=-1", "invalid value -1 for uid"},
      {"type=cache,gid=x", "invalid value x for gid"},
      {"type=cache,ro=x", "invalid value for ro: x"},
      {"type=tmpfs,size=x", "invalid value for size: x"},
      {"mode=1", "mode not allowed for \"bind\" type mounts"},
      {"type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"},
      {"sharing=shared", "invalid cache sharing set for bind mount"},
      {"type=cache,sharing=sharde", "unsupported sharing value \"sharde\" (did you mean shared?)"},
      {"type=secret,from=x,id=y", "secret mount should not have a from"},
      {"type=secret", "invalid secret mount. one of source, target required"},
      {"type=secret,id=a,source=b", "both source and id can't be set"},
      {"type=ssh,source=x", "ssh does not support source"},
      {"a\"b", "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted-field"},
      {"", "failed to parse csv mounts: EOF"},
  };
  for (const Case& c : cases) EXPECT_EQ(refusal([&] { parse_mount(c.text, {}); }), c.reason) << c.text;
}

TEST(Values, ReadsPorts) {
  struct Case {
    const char* word;
    Words ports;
    bool mapping;
  };
  const Case cases[] = {
      {"80", {"80/tcp"}, false},
      {"80/UDP", {"80/udp"}, false},
      {"8000-8002/sctp", {"8000/sctp", "8001/sctp", "8002/sctp"}, false},
      {"8080:80", {"80/tcp"}, true},
      {"127.0.0.1:80:81", {"81/tcp"}, true},
      {"[::1]:80:81", {"81/tcp"}, true},
      {"127.0.0.1::81", {"81/tcp"}, true},
  };
  for (const Case& c : cases) {
    const ExposedPorts read = parse_exposed_ports(c.word);
    EXPECT_EQ(read.list(), c.ports) << c.word;
    EXPECT_EQ(read.has_mapping, c.mapping) << c.word;
  }
  EXPECT_EQ(parse_exposed_ports("0-65535").list().size(), 65536U);
  EXPECT_EQ(refusal([] { parse_exposed_ports("x"); }), "invalid containerPort: x");
  EXPECT_EQ(refusal([] { parse_exposed_ports("80/foo"); }), "invalid proto: foo");
  EXPECT_EQ(refusal([] { parse_exposed_ports("65536"); }), "invalid containerPort: 65536");
  EXPECT_EQ(refusal([] { parse_exposed_ports("/tcp"); }), "no port specified: /tcp<empty>");
  EXPECT_EQ(refusal([] { parse_exposed_ports("x:80"); }), "invalid hostPort: x");
  EXPECT_EQ(refusal([] { parse_exposed_ports("h:80:80"); }), "invalid IP address: h");
  EXPECT_EQ(refusal([] { parse_exposed_ports("1-3:80-81"); }),
            "invalid ranges specified for container and host Ports: 80-81 and 1-3");
}

TEST(Values, ChecksModesSignalsAndPaths) {
  EXPECT_EQ(check_chmod("0644"), 0644U);
  EXPECT_EQ(check_chmod("7777"), 07777U);
  for (const char* symbolic : {"u=rwX,go=rX", "a+X", "go-w", "+x", "u=g"}) EXPECT_FALSE(check_chmod(symbolic));
  for (const char* bad : {"64a", "10000", "", "u", "u=q"})
    EXPECT_EQ(refusal([&] { check_chmod(bad); }),
              std::string("invalid chmod parameter: '") + bad + "'. it should be octal string and between 0 and 07777");
  for (const char* good : {"SIGINT", "int", "9", "RTMIN+3", "SIGRTMAX-14"}) check_signal(good);
  for (const char* bad : {"0", "SIGFOO", "RTMIN+16", ""})
    EXPECT_EQ(refusal([&] { check_signal(bad); }), std::string("invalid signal: ") + bad);
  EXPECT_EQ(clean_path("/a//b/../c/."), "/a/c");
  EXPECT_EQ(clean_path("../../a"), "../../a");
  EXPECT_EQ(clean_path("/../a"), "/a");
  EXPECT_EQ(clean_path(""), ".");
  EXPECT_EQ(parse_duration("1h2m3.5s4ms5us6ns").count(), 3723504005006);
  EXPECT_EQ(refusal([] { parse_duration("1x"); }), "time: unknown unit \"x\" in duration \"1x\"");
  EXPECT_EQ(refusal([] { parse_duration("x"); }), "time: invalid duration \"x\"");
}

}  // namespace
}  // namespace gantry::dockerfile
