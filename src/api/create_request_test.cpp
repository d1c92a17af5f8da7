#include "api/create_request.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::api {
namespace {

engine::CreateRequest read(const std::string& body, ApiVersion version = kMaxApiVersion) {
  return read_create_request(body, {version, false});
}

std::string refusal(const std::string& body, ApiVersion version = kMaxApiVersion) {
  try {
    (void)read(body, version);
    return "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
}

TEST(CreateRequest, TakesConfigAtTheTopAndNamesInAnyCase) {
  const auto request = read(R"({"image":"bb","Cmd":["a"],"HostConfig":{"Memory":7},
      "NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["x"]},"m":null}}})");
  EXPECT_EQ(request.config.Image, "bb");
  EXPECT_EQ(request.host.Memory, 7);
  EXPECT_EQ(request.networks.size(), 2u);
  EXPECT_EQ(request.networks.at("n").Aliases->front(), "x");
}

TEST(CreateRequest, TheDefaultNetworkIsTheBridge) {
  const auto request = read(R"({"NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["x"]}}}})");
  ASSERT_EQ(request.networks.size(), 1u);
  EXPECT_TRUE(request.networks.contains("bridge"));
}

TEST(CreateRequest, NeedsADocument) {
  EXPECT_EQ(refusal("null"), "config cannot be empty in order to create a container");
  EXPECT_EQ(refusal(""), "invalid JSON: got EOF while reading request body");
}

TEST(CreateRequest, OlderVersionsHaveTheirDefaults) {
  EXPECT_EQ(read(R"({"Image":"bb"})", {1, 39}).host.IpcMode, "shareable");
  EXPECT_EQ(read(R"({"Image":"bb"})", {1, 40}).host.IpcMode, "");
  EXPECT_EQ(read(R"({"Image":"bb"})", {1, 40}).host.CgroupnsMode, "host");
  EXPECT_EQ(read(R"({"Image":"bb"})", {1, 41}).host.CgroupnsMode, "");
  EXPECT_FALSE(read(R"({"HostConfig":{"Annotations":{"a":"b"}}})", {1, 42}).host.Annotations);
}

TEST(CreateRequest, SeveralNetworksNeedApi144) {
  const std::string body = R"({"NetworkingConfig":{"EndpointsConfig":{"b":{},"a":{}}}})";
  EXPECT_EQ(refusal(body, {1, 43}), "Container cannot be created with multiple network endpoints: a, b");
  EXPECT_EQ(read(body, {1, 44}).networks.size(), 2u);
}

TEST(CreateRequest, TheContainersMacAddressMovesToItsMainNetwork) {
  const std::string body = R"({"MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"n"}})";
  EXPECT_EQ(read(body, {1, 43}).networks.at("n").MacAddress, "02:00:00:00:00:01");
  EXPECT_TRUE(read(body, {1, 43}).warnings.empty());
  EXPECT_EQ(read(body, {1, 51}).warnings.size(), 1u);
  EXPECT_EQ(refusal(body), "container-wide MAC address no longer supported; use endpoint-specific MAC address instead");
  EXPECT_EQ(refusal(R"({"MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"host"}})", {1, 43}),
            "conflicting options: mac-address and the network mode");
}

TEST(CreateRequest, OldClientsMayGiveOptionsOfAnotherMountType) {
  const std::string body =
      R"({"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"VolumeOptions":{}}]}})";
  EXPECT_FALSE(read(body, {1, 41}).host.Mounts->front().VolumeOptions);
  EXPECT_TRUE(read(body, {1, 42}).host.Mounts->front().VolumeOptions);
  EXPECT_TRUE(read(body, {1, 43}).host.Mounts->front().BindOptions->ReadOnlyNonRecursive.value_or(false));
  EXPECT_FALSE(read(body).host.Mounts->front().BindOptions);
}

TEST(CreateRequest, ImageMountsNeedApi148) {
  const std::string body = R"({"HostConfig":{"Mounts":[{"Type":"image","Source":"i","Target":"/b"}]}})";
  EXPECT_EQ(refusal(body, {1, 47}), "Mount type \"Image\" needs API v1.48 or newer");
  EXPECT_EQ(refusal(body, {1, 48}), "accepted");
}

}  // namespace
}  // namespace gantry::api
