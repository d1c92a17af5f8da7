#include "api/container_json.hpp"

#include <gtest/gtest.h>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "engine/test_world.hpp"

namespace gantry::api {
namespace {

class ContainerJsonTest : public testing::Test {
 protected:
  ContainerJsonTest() { container_ = world_.add('a', "web", 1'700'000'000); }

  std::string list(ApiVersion version, const SizesById* sizes = nullptr) {
    engine::NetworkView networks(world_.networks);
    return render_container_list({container_}, world_.services, networks, version, sizes);
  }
  json::Object inspect(ApiVersion version) {
    return json::parse(render_container(*container_, world_.services, version, {})).as_object();
  }

  engine::TestWorld world_;
  engine::ContainerPtr container_;
};

TEST_F(ContainerJsonTest, AListItemIsWhatClientsExpect) {
  const std::string id(64, 'a');
  const std::string image = "sha256:" + std::string(64, 'f');
  EXPECT_EQ(
      list(kMaxApiVersion),
      R"([{"Id":")" + id + R"(","Names":["/web"],"Image":")" + image + R"(","ImageID":")" + image +
          R"(","Command":"sleep 100","Created":1700000000,"Ports":[],"Labels":{},"State":"created","Status":"Created",)"
          R"("HostConfig":{"NetworkMode":"bridge"},"Health":{"Status":"none","FailingStreak":0},)"
          R"("NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"",)"
          R"("DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"",)"
          R"("IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}},)"
          R"("Mounts":[]}])");
}

TEST_F(ContainerJsonTest, OlderListsHaveNeitherHealthNorAnnotations) {
  container_->host.Annotations = model::StringMap{{"a", "b"}};
  EXPECT_NE(list({1, 46}).find("Annotations"), std::string::npos);
  EXPECT_EQ(list({1, 45}).find("Annotations"), std::string::npos);
  EXPECT_EQ(list({1, 51}).find("\"Health\""), std::string::npos);
}

TEST_F(ContainerJsonTest, SizesAreThereOnlyWhenAskedFor) {
  const SizesById sizes{{std::string(64, 'a'), {12, 34}}};
  EXPECT_EQ(list(kMaxApiVersion).find("Size"), std::string::npos);
  EXPECT_NE(list(kMaxApiVersion, &sizes).find(R"("SizeRw":12,"SizeRootFs":34)"), std::string::npos);
}

TEST_F(ContainerJsonTest, CommandsQuoteArgumentsWithSpaces) {
  container_->path = "sh";
  container_->args = {"-c", "echo hi"};
  EXPECT_EQ(render_command(*container_), "sh -c 'echo hi'");
  container_->args.clear();
  EXPECT_EQ(render_command(*container_), "sh");
}

TEST_F(ContainerJsonTest, InspectHasGosZeroTimesAndNulls) {
  const json::Object shown = inspect(kMaxApiVersion);
  EXPECT_EQ(shown.at("Name"), "/web");
  EXPECT_EQ(shown.at("Created"), "2023-11-14T22:13:20Z");
  EXPECT_TRUE(shown.at("ExecIDs").is_null());
  const json::Object& state = shown.at("State").as_object();
  EXPECT_EQ(state.at("Status"), "created");
  EXPECT_EQ(state.at("StartedAt"), "0001-01-01T00:00:00Z");
  EXPECT_TRUE(shown.at("HostConfig").as_object().at("Binds").is_null());
  EXPECT_TRUE(shown.at("Config").as_object().at("Labels").is_object());
  EXPECT_TRUE(shown.at("Mounts").as_array().empty());
  EXPECT_EQ(shown.at("GraphDriver").as_object().at("Name"), "overlay2");
  EXPECT_TRUE(shown.at("NetworkSettings").as_object().at("Ports").as_object().empty());
}

TEST_F(ContainerJsonTest, OlderClientsReadTheDefaultBridgesAddressAtTheTop) {
  EXPECT_TRUE(inspect({1, 51}).at("NetworkSettings").as_object().contains("IPAddress"));
  EXPECT_FALSE(inspect({1, 52}).at("NetworkSettings").as_object().contains("IPAddress"));
}

TEST_F(ContainerJsonTest, OlderClientsSeeIdAndHostNameAmongAliases) {
  container_->host.NetworkMode = "front";
  container_->config.Hostname = "host";
  const auto aliases = [this](ApiVersion version) {
    return inspect(version).at("NetworkSettings").at("Networks").at("front").at("Aliases");
  };
  EXPECT_EQ(aliases({1, 44}), (json::Array{std::string(12, 'a'), "host"}));
  EXPECT_TRUE(aliases({1, 45}).is_null());
}

TEST_F(ContainerJsonTest, AMacAddressIsShownWhereTheClientLooksForIt) {
  container_->networks["bridge"].MacAddress = "02:00:00:00:00:01";
  EXPECT_EQ(inspect({1, 51}).at("Config").as_object().at("MacAddress"), "02:00:00:00:00:01");
  EXPECT_FALSE(inspect({1, 52}).at("Config").as_object().contains("MacAddress"));
}

TEST_F(ContainerJsonTest, LinksAreRenderedAsPaths) {
  container_->host.Links = std::vector<std::string>{"db:data"};
  EXPECT_EQ(inspect(kMaxApiVersion).at("HostConfig").at("Links"), json::Array{"/db:/web/data"});
}

TEST_F(ContainerJsonTest, TmpfsOptionsAreNoMounts) {
  volume::MountPoint tmpfs;
  tmpfs.type = volume::MountType::tmpfs;
  tmpfs.origin = volume::MountPoint::Origin::tmpfs_map;
  tmpfs.destination = "/t";
  volume::MountPoint named;
  named.name = "data";
  named.driver = "local";
  named.source = "/v/data/_data";
  named.destination = "/data";
  named.mode = "z";
  container_->mounts = {tmpfs, named};
  std::string text;
  JsonWriter json(text);
  write_mounts(json, *container_);
  EXPECT_EQ(text, R"([{"Type":"volume","Name":"data","Source":"/v/data/_data","Destination":"/data","Driver":"local",)"
                  R"("Mode":"z","RW":true,"Propagation":""}])");
}

}  // namespace
}  // namespace gantry::api
