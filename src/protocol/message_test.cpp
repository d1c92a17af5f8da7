#include "protocol/message.hpp"

#include <random>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "protocol/native_process.hpp"
#include "protocol/types.hpp"

namespace gantry::protocol {
namespace {

TEST(Message, SurvivesTheWireInAnyPieces) {
  Message sent(Type::exec_create, 77);
  sent.put(Tag::exec_id, "abc").put_number(Tag::rows, 40).put_flag(Tag::tty, true).put(Tag::process_json, "");
  sent.put(Tag::entry, std::string("\0\n\xff", 3)).put(Tag::entry, "second");
  const std::string wire = sent.encode() + Message(Type::state, 78).encode() + "stream";
  for (std::size_t piece = 1; piece <= wire.size(); ++piece) {
    Decoder decoder;
    std::vector<Message> got;
    for (std::size_t at = 0; at < wire.size(); at += piece) {
      decoder.feed(std::string_view(wire).substr(at, piece));
      while (got.size() < 2) {
        auto message = decoder.next();
        if (!message) break;
        got.push_back(*message);
      }
    }
    ASSERT_EQ(got.size(), 2u);
    EXPECT_EQ(got[0].type(), Type::exec_create);
    EXPECT_EQ(got[0].request(), 77u);
    EXPECT_EQ(got[0].text(Tag::exec_id), "abc");
    EXPECT_EQ(got[0].number(Tag::rows), 40u);
    EXPECT_TRUE(got[0].flag(Tag::tty));
    EXPECT_EQ(got[0].all(Tag::entry).size(), 2u);
    EXPECT_EQ(got[0].all(Tag::entry)[0], std::string_view("\0\n\xff", 3));
    EXPECT_EQ(got[1].type(), Type::state);
    EXPECT_EQ(decoder.take_rest(), "stream");
  }
}

TEST(Message, RejectsFramesThatLieAboutTheirLength) {
  Decoder huge;
  huge.feed(std::string("\xff\xff\xff\xff", 4));
  EXPECT_THROW(huge.next(), Error);
  Decoder small;
  small.feed(std::string("\0\0\0\1\0", 5));
  EXPECT_THROW(small.next(), Error);
  std::string field = Message(Type::state, 1).put(Tag::exec_id, "abcd").encode();
  field[kHeaderSize + 5] = 100;  // the field's length
  Decoder lying;
  lying.feed(field);
  EXPECT_THROW(lying.next(), Error);
}

TEST(Message, RejectsWhatIsTooLargeToSend) {
  Message message(Type::update, 1);
  message.put(Tag::resources_json, std::string(kMaxFrame, 'x'));
  EXPECT_THROW(message.encode(), Error);
  Message many(Type::ok, 1);
  for (std::size_t i = 0; i <= kMaxFields; ++i) many.put_number(Tag::pid, i);
  EXPECT_THROW(many.encode(), Error);
}

TEST(Message, NumbersOfTheWrongSizeAreErrors) {
  Message message(Type::resize, 1);
  message.put(Tag::rows, "12");
  EXPECT_THROW(message.number(Tag::rows), Error);
  EXPECT_EQ(message.number(Tag::columns, 9), 9u);
}

TEST(Message, GarbageNeverDoesAnythingButThrow) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = Message(Type::attach, 3).put(Tag::exec_id, "x").put_number(Tag::queue_bytes, 5).encode();
    const int flips = 1 + static_cast<int>(random() % 6);
    for (int i = 0; i < flips; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    Decoder decoder;
    try {
      decoder.feed(bytes);
      while (auto message = decoder.next()) {
        read_attach(*message);
        read_state(*message);
        read_exec(*message);
        read_failure(*message);
        read_log_options(*message);
      }
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::invalid_argument);
    }
  }
}

TEST(Types, StructsSurviveTheirMessages) {
  ContainerState state;
  state.status = Status::running;
  state.pid = 4711;
  state.started_ns = 1'700'000'000'123'456'789;
  state.exit = ExitRecord{137, 9, 2, true, 42};
  Message message(Type::ok, 1);
  put(message, state);
  const ContainerState got = read_state(message);
  EXPECT_EQ(got.status, Status::running);
  EXPECT_EQ(got.pid, 4711);
  EXPECT_EQ(got.started_ns, state.started_ns);
  EXPECT_EQ(got.exit, state.exit);

  const RuntimeFailure failure{Stage::create, FailureKind::executable_not_found, "nosuch", "exec: \"nosuch\": …"};
  Message error(Type::error, 1);
  put(error, failure);
  EXPECT_EQ(read_failure(error), failure);
}

TEST(Types, AttachDefaultsHoldWhenAnOlderDaemonLeavesThemOut) {
  const AttachRequest request = read_attach(Message(Type::attach, 1));
  EXPECT_TRUE(request.use_stdout);
  EXPECT_FALSE(request.use_stdin);
  EXPECT_EQ(request.queue_bytes, 1u << 20);
}

TEST(Types, ExecIdsCannotNameOtherPlaces) {
  for (const char* id : {"", "../x", "a/b", ".hidden", "a b"}) {
    Message message(Type::exec_create, 1);
    message.put(Tag::exec_id, id);
    EXPECT_THROW(read_exec(message), Error) << id;
  }
}

TEST(Files, ConfigSurvivesRenderingAndParsing) {
  ShimConfig config;
  config.container_id = "abc";
  config.bundle = "/run/with\nnewline and 100%";
  config.runtime_path = "runc";
  config.runtime_args = {"--systemd-cgroup", "--x=y z"};
  config.tty = true;
  config.direct = false;
  config.log = {10 << 20, 3};
  config.log_program = "/usr/libexec/gantry/gantry-log";
  config.log_settings = {"driver=syslog", "tag=a b\n100%"};
  config.log_drops = config.log_compress = true;
  config.log_buffer = 1 << 20;
  config.oom_score_adj = -500;
  config.rows = 24;
  EXPECT_EQ(parse_config(render_config(config)), config);
}

TEST(Files, ConfigErrorsNameTheKey) {
  try {
    parse_config("container_id a\nbundle b\nruntime_path c\ntty 7\n");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("tty"), std::string::npos);
  }
  EXPECT_THROW(parse_config(""), Error);
  EXPECT_NO_THROW(parse_config("container_id a\nbundle b\nruntime_path c\nfrom_the_future 7\n"));
}

TEST(Files, ExitRecordSurvivesAndRejectsTornFiles) {
  const ExitRecord exit{3, 0, 0, false, 1'700'000'000'000'000'001};
  EXPECT_EQ(parse_exit(render_exit(exit)), exit);
  EXPECT_FALSE(parse_exit(""));
  EXPECT_FALSE(parse_exit("exit_code x\n"));
}

TEST(Types, PidsSurviveTheWire) {
  const std::vector<pid_t> pids{1, 300, 4'194'304, 2'147'483'647};
  EXPECT_EQ(unpack_pids(pack_pids(pids)), pids);
  EXPECT_TRUE(unpack_pids("").empty());
  EXPECT_THROW(unpack_pids(std::string(3, '\1')), Error);
  EXPECT_THROW(unpack_pids(std::string(4, '\0')), Error);
  EXPECT_THROW(unpack_pids(std::string(4, '\xff')), Error);
}

NativeProcess full_process() {
  NativeProcess process;
  process.args = {"sh", "", "-c"};
  process.env = {"PATH=/bin", "A="};
  process.directory = "/tmp";
  process.uid = 1000;
  process.gid = 50;
  process.groups = {50, 1000, 4'000'000'000};
  process.umask = 077;
  process.capabilities = {1, 2, 3, 4, std::uint64_t{1} << 40};
  process.no_new_privileges = true;
  process.limits = {{7, 1024, ~std::uint64_t{0}}};
  process.oom_score_adj = -500;
  process.filter = std::string(16, '\6');
  process.filter_flags = 2;
  process.apparmor_profile = "docker-default";
  process.cgroups_v1 = {"/sys/fs/cgroup/cpu/docker/x"};
  process.cgroup_v2 = "/sys/fs/cgroup/unified/docker/x";
  process.cgroup_v2_mount = "/sys/fs/cgroup/unified";
  return process;
}

TEST(Native, AProcessSurvivesTheWire) {
  EXPECT_EQ(decode_native(encode_native(full_process())), full_process());
  NativeProcess least;
  least.args = {"true"};
  EXPECT_EQ(decode_native(encode_native(least)), least);
}

TEST(Native, WhatMakesNoSenseIsRefused) {
  EXPECT_THROW(decode_native(""), Error);
  EXPECT_THROW(decode_native("x"), Error);
  const auto refused = [](auto change) {
    NativeProcess process = full_process();
    change(process);
    EXPECT_THROW(decode_native(encode_native(process)), Error);
  };
  refused([](NativeProcess& p) { p.args.clear(); });
  refused([](NativeProcess& p) { p.args[1] = std::string("a\0b", 3); });
  refused([](NativeProcess& p) { p.directory = "tmp"; });
  refused([](NativeProcess& p) { p.directory = ""; });
  refused([](NativeProcess& p) { p.filter = "1234567"; });
  refused([](NativeProcess& p) { p.filter = std::string(5000 * 8, '\0'); });
  refused([](NativeProcess& p) { p.oom_score_adj = 1001; });
  refused([](NativeProcess& p) { p.limits.resize(65); });
  // Every cut is refused or read, never more.
  const std::string whole = encode_native(full_process());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    try {
      (void)decode_native(std::string_view(whole).substr(0, size));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::invalid_argument);
    }
  }
}

}  // namespace
}  // namespace gantry::protocol
