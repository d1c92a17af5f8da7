#include "engine/log_config.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::engine {
namespace {

class LogConfigTest : public testing::Test {
 protected:
  LogConfigTest() {
    container_.id = ContainerId(std::string(64, 'a'));
    container_.name = "web";
    container_.image_id = "sha256:" + std::string(64, 'b');
    container_.image_ref = "busybox:latest";
    container_.path = "sh";
    container_.args = {"-c", "true"};
    container_.config.Labels = json::StringMap{{"role", "db"}, {"com.example.x", "<1>"}, {"other", "o"}};
    container_.config.Env = std::vector<std::string>{"A=1", "AB=2", "C=3=4", "odd"};
  }
  protocol::ShimConfig filled(const std::string& driver, logs::Options options) {
    container_.host.LogConfig.Type = driver;
    container_.host.LogConfig.Config = std::move(options);
    container_.log_path = driver == "json-file" ? "/data/x-json.log" : "";
    protocol::ShimConfig config;
    fill_log_config(config, paths_, container_);
    return config;
  }
  std::string tag(const std::string& text) const { return render_log_tag(text, container_); }

  Container container_;
  sys::Paths paths_;
};

TEST_F(LogConfigTest, TagsNameTheContainer) {
  EXPECT_EQ(tag("{{.Name}}/{{.ID}}"), "web/aaaaaaaaaaaa");
  EXPECT_EQ(tag("{{ .ImageName }} {{.DaemonName}}"), "busybox:latest docker");
  EXPECT_EQ(tag("{{.ImageID}}"), "sha256:bbbbb");
  EXPECT_EQ(tag("{{.FullID}}"), std::string(64, 'a'));
  EXPECT_EQ(tag("{{index .ContainerLabels \"role\"}}{{index .ContainerLabels \"none\"}}"), "db");
  EXPECT_EQ(tag("{{.Name | upper}}-{{.FullID | truncate 3}}"), "WEB-aaa");
  EXPECT_EQ(tag("plain"), "plain");
  for (const char* bad : {"{{.Nothing}}", "{{.ID", "{{printf}}", "{{.ID | nothing}}"}) EXPECT_THROW(tag(bad), Error);
}

TEST_F(LogConfigTest, LabelsAndVariablesAreChosenByListAndExpression) {
  const auto config = filled("json-file", {{"labels", "role,missing"},
                                           {"labels-regex", "^com\\."},
                                           {"env", "C"},
                                           {"env-regex", "^A"},
                                           {"tag", "{{.Name}}"}});
  EXPECT_EQ(config.log_attrs,
            R"({"A":"1","AB":"2","C":"3=4","com.example.x":"\u003c1\u003e","role":"db","tag":"web"})");
  EXPECT_TRUE(config.log_settings.empty());
  EXPECT_EQ(filled("json-file", {}).log_attrs, "");
  try {
    filled("json-file", {{"labels-regex", "("}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::internal);
    EXPECT_TRUE(e.message().starts_with("failed to initialize logging driver: error parsing regexp"));
  }
}

TEST_F(LogConfigTest, EveryDriverButNoneKeepsAFileThatIsBounded) {
  EXPECT_EQ(filled("json-file", {}).log_path, "/data/x-json.log");
  EXPECT_FALSE(filled("json-file", {}).log_compress);
  const auto local = filled("local", {});
  EXPECT_TRUE(local.log_path.ends_with("/container.log"));
  EXPECT_TRUE(local.log_compress);
  EXPECT_EQ(local.log, (protocol::LogOptions{20 << 20, 5}));
  const auto cached = filled("syslog", {{"cache-max-size", "1m"}, {"cache-max-file", "1"}});
  EXPECT_TRUE(cached.log_path.ends_with("/container-cached.log"));
  EXPECT_EQ(cached.log, (protocol::LogOptions{1 << 20, 1}));
  EXPECT_FALSE(cached.log_compress);
  EXPECT_TRUE(filled("syslog", {{"cache-disabled", "true"}}).log_path.empty());
  EXPECT_TRUE(filled("none", {}).log_path.empty());
}

TEST_F(LogConfigTest, JsonFilesRotateUnlessThatIsTurnedOff) {
  const auto options = [](logs::Options given) { return log_file_options("json-file", given); };
  EXPECT_EQ(options({}).max_size, 20u << 20);
  EXPECT_EQ(options({}).max_file, 5u);
  EXPECT_EQ(options({{"max-size", "-1"}}).max_size, 0u);
  EXPECT_EQ(options({{"max-size", "1m"}}).max_size, 1u << 20);
  EXPECT_EQ(options({{"max-size", "1m"}}).max_file, 1u);
  EXPECT_THROW(options({{"max-size", "x"}}), Error);
  EXPECT_THROW(options({{"max-file", "0"}}), Error);
  EXPECT_TRUE(options({{"compress", "true"}}).compress);
  EXPECT_THROW(options({{"compress", "true"}, {"max-file", "1"}}), Error);
}

TEST_F(LogConfigTest, ServersAreToldWhoSpeaks) {
  const auto config = filled("gelf", {{"gelf-address", "udp://h:1"}, {"labels", "role"}, {"mode", "non-blocking"}});
  EXPECT_TRUE(config.log_drops);
  EXPECT_EQ(config.log_buffer, 1'000'000u);
  for (const char* pair :
       {"driver=gelf", "tag=aaaaaaaaaaaa", "container_name=/web", "command=sh -c true", "extra.role=db", "drop=1",
        "buffer=1000000", "gelf-address=udp://h:1", "image_name=busybox:latest"})
    EXPECT_NE(std::find(config.log_settings.begin(), config.log_settings.end(), pair), config.log_settings.end())
        << pair;
}

TEST_F(LogConfigTest, DaemonOptionsBelongToItsDriver) {
  config::Config daemon;
  daemon.log_driver = "local";
  daemon.log_opts = {{"max-size", "1m"}, {"cache-max-size", "2m"}};
  model::LogConfig log;
  complete_log_config(log, daemon);
  EXPECT_EQ(log.Type, "local");
  EXPECT_EQ(log.Config->at("max-size"), "1m");
  model::LogConfig other;
  other.Type = "syslog";
  complete_log_config(other, daemon);
  EXPECT_FALSE(other.Config->contains("max-size"));
  EXPECT_EQ(other.Config->at("cache-max-size"), "2m");
  model::LogConfig wrong;
  wrong.Config = json::StringMap{{"max-file", "1"}};
  EXPECT_THROW(complete_log_config(wrong, daemon), Error);
}

}  // namespace
}  // namespace gantry::engine
