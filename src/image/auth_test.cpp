#include "image/auth.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/config_changes.hpp"
#include "image/registry_client.hpp"

namespace gantry::image {
namespace {

TEST(Auth, ReadsEveryEncodingThatClientsSend) {
  const std::string json = R"({"username":"u?>","password":"p~~","serveraddress":"https://index.docker.io/v1/"})";
  std::string standard = base64_encode(json);
  std::string url = standard;
  for (char& c : url) c = c == '+' ? '-' : c == '/' ? '_' : c;
  std::string unpadded = url;
  while (unpadded.ends_with('=')) unpadded.pop_back();
  for (const std::string& header : {standard, url, unpadded}) {
    const RegistryAuth auth = decode_auth_header(header);
    EXPECT_EQ(auth.username, "u?>") << header;
    EXPECT_EQ(auth.password, "p~~");
  }
  EXPECT_EQ(decode_auth_header(base64_encode(R"({"auth":")" + base64_encode("a:b:c") + R"("})")).password, "b:c");
}

TEST(Auth, WhatCannotBeReadIsAnonymous) {
  for (const std::string& header :
       {std::string(), std::string("e30="), std::string("%%%"), base64_encode("[1]"), base64_encode("{")})
    EXPECT_TRUE(decode_auth_header(header).empty()) << header;
}

TEST(Auth, AddressesOfCredentialsNameHosts) {
  EXPECT_EQ(auth_host("https://index.docker.io/v1/"), "docker.io");
  EXPECT_EQ(auth_host("registry-1.docker.io"), "docker.io");
  EXPECT_EQ(auth_host("https://Host:5000/v2/"), "host:5000");
}

TEST(Challenges, AreReadWithQuotesEscapesAndSeveralSchemes) {
  const auto all = parse_challenges(
      R"(Basic realm="a, b", BEARER Realm="https://x/token",service=reg , scope="repository:a/b:pull,push" error="in\"s")");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].scheme, "basic");
  EXPECT_EQ(all[0].params.at("realm"), "a, b");
  EXPECT_EQ(all[1].scheme, "bearer");
  EXPECT_EQ(all[1].params.at("realm"), "https://x/token");
  EXPECT_EQ(all[1].params.at("service"), "reg");
  EXPECT_EQ(all[1].params.at("scope"), "repository:a/b:pull,push");
  EXPECT_EQ(all[1].params.at("error"), "in\"s");
  EXPECT_TRUE(parse_challenges("").empty());
  (void)parse_challenges(R"(=,="",,"x)");
}

TEST(InsecureHosts, AreLoopbackNamesAndNetworks) {
  EXPECT_TRUE(is_insecure_host("localhost:5000", {}, {}));
  EXPECT_TRUE(is_insecure_host("127.3.2.1", {}, {}));
  EXPECT_TRUE(is_insecure_host("[::1]:5000", {}, {}));
  EXPECT_FALSE(is_insecure_host("10.0.0.1:5000", {}, {}));
  EXPECT_TRUE(is_insecure_host("10.0.0.1:5000", {"10.0.0.0/8"}, {}));
  EXPECT_TRUE(is_insecure_host("reg.lan", {"10.0.0.0/8"}, {"10.9.9.9"}));
  EXPECT_TRUE(is_insecure_host("reg.lan:80", {"reg.lan:80"}, {}));
  EXPECT_FALSE(is_insecure_host("reg.lan:81", {"reg.lan:80"}, {}));
}

TEST(Changes, AreDockerfileInstructions) {
  model::ContainerConfig c;
  apply_changes(c, {"CMD [\"a\", \"b\"]", "ENV A=1 B='x y'", "ENV A 2", "EXPOSE 80 90-91/udp",
                    "LABEL k=v \"k 2\"=\"v 2\"", "WORKDIR /a", "WORKDIR b/../c", "USER 1:2", "VOLUME [\"/data\"]",
                    "STOPSIGNAL SIGINT", "HEALTHCHECK --interval=5s --retries=2 CMD curl localhost"});
  EXPECT_EQ(*c.Cmd, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(*c.Env, (std::vector<std::string>{"A=2", "B=x y"}));
  EXPECT_TRUE(c.ExposedPorts->contains("80/tcp") && c.ExposedPorts->contains("91/udp"));
  EXPECT_EQ(c.Labels->at("k 2"), "v 2");
  EXPECT_EQ(c.WorkingDir, "/a/c");
  EXPECT_EQ(c.User, "1:2");
  EXPECT_TRUE(c.Volumes->contains("/data"));
  EXPECT_EQ(*c.Healthcheck->Interval, 5'000'000'000);
  EXPECT_EQ(c.Healthcheck->Test->front(), "CMD-SHELL");
  apply_changes(c, {"ENTRYPOINT run it"});
  EXPECT_EQ(c.Entrypoint->at(2), "run it");
  try {
    apply_changes(c, {"COPY a b"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "copy is not a valid change command");
  }
  for (const char* bad : {"EXPOSE 0", "EXPOSE 1/x", "ENV", "ENV A", "LABEL a=b c", "ENV A=\"b"})
    EXPECT_THROW(apply_changes(c, {bad}), Error) << bad;
}

}  // namespace
}  // namespace gantry::image
