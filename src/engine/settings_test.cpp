#include "engine/settings.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "engine/container_codec.hpp"
#include "engine/lifecycle.hpp"
#include "engine/messages.hpp"
#include "engine/names.hpp"

namespace gantry::engine {
namespace {

using namespace std::chrono_literals;
using Words = std::vector<std::string>;

template <class F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument) << e.what();
    return e.message();
  }
  return "(no error)";
}

TEST(MergeImageConfig, PutsTheImagesVariablesBehindTheUsersAndLetsTheUserWin) {
  model::ContainerConfig config, image;
  config.Env = Words{"A=1", "B=2"};
  image.Env = Words{"PATH=/bin", "A=0"};
  merge_image_config(config, image);
  EXPECT_EQ(*config.Env, (Words{"A=1", "B=2", "PATH=/bin"}));
}

TEST(MergeImageConfig, InheritsCmdOnlyTogetherWithTheEntrypoint) {
  model::ContainerConfig image;
  image.Entrypoint = Words{"/entry"};
  image.Cmd = Words{"default"};
  model::ContainerConfig plain;
  merge_image_config(plain, image);
  EXPECT_EQ(*plain.Entrypoint, Words{"/entry"});
  EXPECT_EQ(*plain.Cmd, Words{"default"});
  model::ContainerConfig own_command;
  own_command.Cmd = Words{"mine"};
  merge_image_config(own_command, image);
  EXPECT_EQ(*own_command.Entrypoint, Words{"/entry"});
  EXPECT_EQ(*own_command.Cmd, Words{"mine"});
  model::ContainerConfig own_entrypoint;
  own_entrypoint.Entrypoint = Words{"/mine"};
  merge_image_config(own_entrypoint, image);
  EXPECT_FALSE(own_entrypoint.Cmd);
  model::ContainerConfig reset;
  reset.Entrypoint = Words{""};
  reset.Cmd = Words{"sh"};
  merge_image_config(reset, image);
  EXPECT_FALSE(reset.Entrypoint);
  EXPECT_EQ(*reset.Cmd, Words{"sh"});
}

TEST(ValidateConfig, RefusesWithDockersTexts) {
  model::ContainerConfig config;
  EXPECT_EQ(message_of([&] { validate_config(config); }), "no command specified");
  config.Cmd = Words{"sh"};
  config.WorkingDir = "relative";
  EXPECT_EQ(message_of([&] { validate_config(config); }),
            "the working directory 'relative' is invalid, it needs to be an absolute path");
  config.WorkingDir = "/";
  config.Hostname = "a\n127.0.0.1 evil";
  EXPECT_NE(message_of([&] { validate_config(config); }).find("invalid Hostname"), std::string::npos);
}

TEST(RestartPolicy, IsCheckedAndFilledIn) {
  model::RestartPolicy policy;
  validate_restart_policy(policy, false);
  EXPECT_EQ(policy.Name, "no");
  policy.Name = "foo";
  EXPECT_EQ(
      message_of([&] { validate_restart_policy(policy, false); }),
      "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'");
  policy.Name = "always";
  EXPECT_EQ(message_of([&] { validate_restart_policy(policy, true); }),
            "can't create 'AutoRemove' container with restart policy");
  policy.MaximumRetryCount = 2;
  EXPECT_EQ(message_of([&] { validate_restart_policy(policy, false); }),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'");
}

TEST(Signals, AreReadByNameAndNumber) {
  EXPECT_EQ(parse_signal("KILL"), 9);
  EXPECT_EQ(parse_signal("sigterm"), 15);
  EXPECT_EQ(parse_signal("9"), 9);
  EXPECT_EQ(parse_signal("RTMIN+3"), 37);
  EXPECT_EQ(message_of([] { parse_signal("FOO"); }), "invalid signal: FOO");
  EXPECT_EQ(message_of([] { parse_signal("0"); }), "invalid signal: 0");
  EXPECT_EQ(message_of([] { parse_signal("65"); }), "invalid signal: 65");
}

TEST(Names, FollowDockersRule) {
  for (const char* good : {"ab", "a.b-c_d", "9x"}) EXPECT_NO_THROW(validate_container_name(good)) << good;
  for (const char* bad : {"", "a", "-a", "a b", "a/b", "\xc3\xa9x"})
    EXPECT_THROW(validate_container_name(bad), Error) << bad;
  for (int attempt = 0; attempt < 100; ++attempt) EXPECT_NO_THROW(validate_container_name(generate_name(attempt)));
}

TEST(StartFailures, CarryTheWordsThatTheClientSearchesFor) {
  protocol::RuntimeFailure failure;
  failure.kind = protocol::FailureKind::executable_not_found;
  failure.path = "nosuch";
  auto missing = render_start_failure(failure, "nosuch");
  EXPECT_EQ(missing.exit_code, 127);
  EXPECT_NE(missing.error.message().find(R"(exec: "nosuch": executable file not found in $PATH)"), std::string::npos);
  failure.kind = protocol::FailureKind::permission_denied;
  failure.path = "/etc/passwd";
  auto denied = render_start_failure(failure, "/etc/passwd");
  EXPECT_EQ(denied.exit_code, 126);
  EXPECT_NE(denied.error.message().find("permission denied"), std::string::npos);
}

TEST(ContainerCodec, BringsAContainerBackAsItWas) {
  Container container;
  container.image_ref = "bb";
  container.path = "sh";
  container.args = {"-c", "true"};
  container.config.Cmd = Words{"sh"};
  container.host.Memory = 7 << 20;
  volume::MountPoint mount;
  mount.type = volume::MountType::bind;
  mount.destination = "/x";
  container.mounts.push_back(mount);
  container.state.exit_code = 3;
  container.state.started = Timestamp{12345ns};
  Container again;
  decode_config(encode_config(container), again);
  again.state = decode_state(encode_state(container.state));
  EXPECT_EQ(again.args, container.args);
  EXPECT_EQ(again.host.Memory, 7 << 20);
  EXPECT_EQ(again.mounts, container.mounts);
  EXPECT_EQ(again.state.exit_code, 3);
  EXPECT_EQ(again.state.started, container.state.started);
  EXPECT_FALSE(again.config.Entrypoint);
}

TEST(ContainerState, IsToldInDockersWordsAndPrecedence) {
  Container container;
  const Timestamp at{1000s};
  EXPECT_EQ(container.status_text(at), "Created");
  container.state.running = true;
  container.state.started = Timestamp{940s};
  EXPECT_EQ(container.status_text(at), "Up About a minute");
  container.state.paused = true;
  EXPECT_EQ(container.status_text(at), "Up About a minute (Paused)");
  container.state = {};
  container.state.started = Timestamp{1s};
  container.state.finished = Timestamp{995s};
  container.state.exit_code = 137;
  EXPECT_EQ(container.status_text(at), "Exited (137) 5 seconds ago");
  EXPECT_EQ(status_name(container.status()), "exited");
}

}  // namespace
}  // namespace gantry::engine
