#include "model/model.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "json/codec.hpp"

namespace gantry {
namespace {

TEST(ModelCodec, MatchesNamesInAnyCaseAndIgnoresUnknownOnes) {
  auto config = model::decode_container_config(json::parse(R"({"image":"bb","CMD":"ls","nosuch":{"a":1},"Env":null})"));
  EXPECT_EQ(config.Image, "bb");
  ASSERT_TRUE(config.Cmd);
  EXPECT_EQ(config.Cmd->at(0), "ls");
  EXPECT_FALSE(config.Env);
}

TEST(ModelCodec, NamesTheFieldThatHasTheWrongType) {
  try {
    model::decode_host_config(json::parse(R"({"Memory":"lots"})"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    EXPECT_STREQ(e.what(), "invalid JSON: HostConfig.Memory: expected an integer, got a string");
  }
}

TEST(ModelCodec, WritesNullForAbsentListsAndLeavesOmittedFieldsOut) {
  model::HostConfig config;
  std::string text = json::render(model::encode(config));
  EXPECT_NE(text.find(R"("Binds":null)"), std::string::npos);
  EXPECT_EQ(text.find("Mounts"), std::string::npos);
  EXPECT_NE(text.find(R"("Memory":0)"), std::string::npos);
}

TEST(ModelCodec, ComesBackAsItWas) {
  auto value =
      json::parse(R"({"Memory":1,"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"1"}],"81/tcp":null},"Init":true})");
  auto config = model::decode_host_config(value);
  auto again = model::decode_host_config(model::encode(config));
  EXPECT_EQ(again.Memory, 1);
  EXPECT_TRUE(again.Init && *again.Init);
  EXPECT_EQ(again.PortBindings->at("80/tcp")->at(0).HostPort, "1");
  EXPECT_FALSE(again.PortBindings->at("81/tcp"));
}

}  // namespace
}  // namespace gantry
