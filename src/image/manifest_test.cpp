#include "image/manifest.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/image_config.hpp"

namespace gantry::image {
namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string descriptor(std::string_view type, const std::string& digest = kDigest, const std::string& size = "3") {
  return fmt::format(R"({{"mediaType":"{}","digest":"{}","size":{}}})", type, digest, size);
}

std::string manifest_text(const std::string& layers, const std::string& extra = "") {
  return fmt::format(R"({{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]{}}})", kOciManifest,
                     descriptor(kOciConfig), layers, extra);
}

std::string refusal(const std::string& text, std::string_view type = {}) {
  try {
    (void)parse_document(text, type);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument) << e.message();
    return e.message();
  }
  return "accepted";
}

TEST(Manifest, ReadsAndWritesTheSame) {
  const std::string text = manifest_text(descriptor(kOciLayerGzip) + "," + descriptor(kDockerLayerGzip));
  const Manifest manifest = parse_manifest(text, "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
  EXPECT_EQ(manifest.layers.size(), 2u);
  EXPECT_EQ(manifest.config.size, 3);
  const Manifest again = parse_manifest(render_manifest(manifest));
  EXPECT_EQ(again.layers, manifest.layers);
}

TEST(Manifest, RefusesHostileDocuments) {
  EXPECT_NE(refusal(R"({"schemaVersion":1,"fsLayers":[]})").find("schema 1 support has been removed"),
            std::string::npos);
  EXPECT_NE(refusal("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws").find("schema 1"),
            std::string::npos);
  EXPECT_EQ(refusal(manifest_text("", R"(,"manifests":[])")), "invalid manifest: it has both layers and manifests");
  EXPECT_EQ(refusal(R"({"schemaVersion":2})"), "invalid manifest: it has neither layers nor manifests");
  EXPECT_NE(refusal(manifest_text(descriptor(kOciLayer, "../../x"))).find("layers[0].digest"), std::string::npos);
  EXPECT_NE(refusal(manifest_text(descriptor(kOciLayer, "sha256:" + std::string(64, 'A')))).find("layers[0].digest"),
            std::string::npos);
  EXPECT_NE(refusal(manifest_text(descriptor(kOciLayer, kDigest, "-1"))).find("layers[0].size"), std::string::npos);
  EXPECT_NE(refusal(manifest_text(descriptor(kOciLayer, kDigest, "1e3"))).find("layers[0].size"), std::string::npos);
  EXPECT_NE(refusal(manifest_text(descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")))
                .find("layers[0].mediaType"),
            std::string::npos);
  EXPECT_NE(refusal(manifest_text(""), kDockerManifest).find("but it was sent as"), std::string::npos);
  EXPECT_NE(refusal("[]").find("not an object"), std::string::npos);
  EXPECT_NE(refusal("{").find("invalid JSON"), std::string::npos);
  EXPECT_NE(refusal(std::string(5 << 20, ' ')).find("larger than"), std::string::npos);
  std::string many = descriptor(kOciLayer);
  for (std::size_t i = 0; i < kMaxLayers; ++i) many += "," + descriptor(kOciLayer);
  EXPECT_EQ(refusal(manifest_text(many)), "invalid manifest: layers: more than 127");
  const std::string artifact = fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[]}})",
                                           descriptor("application/vnd.cncf.helm.config.v1+json"));
  EXPECT_EQ(refusal(artifact),
            R"(Encountered remote "application/vnd.cncf.helm.config.v1+json"(artifact) when fetching)");
  EXPECT_NE(refusal(std::string(200, '[')).find("invalid JSON"), std::string::npos);
}

TEST(Manifest, EmbeddedDataMustMatchItsDigest) {
  const std::string good = fmt::format(R"({{"mediaType":"{}","digest":"{}","size":2,"data":"{}"}})", kOciLayer,
                                       digest_of("hi"), base64_encode("hi"));
  EXPECT_EQ(refusal(manifest_text(good)), "accepted");
  const std::string bad = fmt::format(R"({{"mediaType":"{}","digest":"{}","size":2,"data":"{}"}})", kOciLayer,
                                      digest_of("hi"), base64_encode("ho"));
  EXPECT_NE(refusal(manifest_text(bad)).find("data does not match"), std::string::npos);
}

Descriptor for_platform(const std::string& os, const std::string& arch, const std::string& variant, char digit) {
  Descriptor d;
  d.media_type = kOciManifest;
  d.digest = "sha256:" + std::string(64, digit);
  d.platform = Platform{os, arch, variant, ""};
  return d;
}

TEST(Index, ChoosesThePlatformThatFitsBest) {
  Index index;
  index.manifests = {for_platform("linux", "arm", "v6", '1'),    for_platform("linux", "arm", "v7", '2'),
                     for_platform("linux", "arm64", "v8", '3'),  for_platform("linux", "amd64", "", '4'),
                     for_platform("linux", "amd64", "v3", '5'),  for_platform("windows", "amd64", "", '6'),
                     for_platform("unknown", "unknown", "", '7')};
  const auto first = [&](const char* platform) {
    const auto found = select_manifests(index, PlatformMatcher::only(parse_platform(platform)));
    return found.empty() ? std::string("none") : found.front().digest.substr(7, 1);
  };
  EXPECT_EQ(first("linux/arm64"), "3");
  EXPECT_EQ(first("linux/arm64/v8"), "3");
  EXPECT_EQ(first("linux/arm/v7"), "2");
  EXPECT_EQ(first("linux/arm/v8"), "2");
  EXPECT_EQ(first("linux/arm/v6"), "1");
  EXPECT_EQ(first("linux/arm/v5"), "none");
  EXPECT_EQ(first("linux/amd64"), "4");
  EXPECT_EQ(first("linux/amd64/v4"), "5");
  EXPECT_EQ(first("linux/s390x"), "none");
  EXPECT_EQ(first("linux/unknown"), "none");
}

TEST(Platform, ReadsTheUsualSpellings) {
  EXPECT_EQ(render_platform(parse_platform("linux/x86_64")), "linux/amd64");
  EXPECT_EQ(render_platform(parse_platform("linux/aarch64")), "linux/arm64");
  EXPECT_EQ(render_platform(parse_platform("linux/arm")), "linux/arm/v7");
  EXPECT_EQ(render_platform(parse_platform("armhf")), "linux/arm/v7");
  EXPECT_EQ(render_platform(parse_platform("linux")), render_platform(host_platform()));
  for (const char* bad : {"", "a/b/c/d", "lin ux/amd64", "bogus", "linux/"})
    EXPECT_THROW(parse_platform(bad), Error) << bad;
}

TEST(ImageConfig, ChainIdsFollowTheSpecification) {
  const std::string a = digest_of("a"), b = digest_of("b");
  const auto chain = chain_ids({a, b});
  EXPECT_EQ(chain[0], a);
  EXPECT_EQ(chain[1], digest_of(a + " " + b));
}

TEST(ImageConfig, SurvivesWritingAndReading) {
  ImageConfig config;
  config.created = *parse_rfc3339("2026-01-02T03:04:05.6Z");
  config.platform = {"linux", "arm64", "v8", ""};
  config.config.Env = std::vector<std::string>{"A=1"};
  config.config.Cmd = std::vector<std::string>{"sh"};
  config.config.Labels = json::StringMap{{"k", "v"}};
  config.diff_ids = {digest_of("x")};
  HistoryEntry entry;
  entry.created_by = "COPY x";
  config.history.push_back(entry);
  const ImageConfig again = parse_image_config(render_image_config(config));
  EXPECT_EQ(again.created, config.created);
  EXPECT_EQ(again.platform, config.platform);
  EXPECT_EQ(*again.config.Env, *config.config.Env);
  EXPECT_EQ(*again.config.Cmd, *config.config.Cmd);
  EXPECT_EQ(again.diff_ids, config.diff_ids);
  EXPECT_EQ(again.history, config.history);
  EXPECT_THROW(parse_image_config("{}"), Error);
  EXPECT_THROW(parse_image_config(R"({"rootfs":{"type":"layers","diff_ids":["x"]}})"), Error);
  EXPECT_THROW(parse_image_config(R"({"rootfs":{"type":"windows","diff_ids":[]}})"), Error);
}

}  // namespace
}  // namespace gantry::image
