#include "image/transfers.hpp"

#include <random>

#include <gtest/gtest.h>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/test_support.hpp"
#include "json/json.hpp"
#include "sys/file.hpp"

namespace gantry::image {
namespace {

using test::DebianRegistry;
using test::FakeRegistry;
using test::ImageBytes;
using test::Machine;
using test::TemporaryDirectory;

std::string noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

std::vector<std::string> two_layers() {
  return {test::make_tar(
              {{"bin/", "", '5'}, {"bin/busybox", sys::read_file("/bin/busybox")}, {"bin/sh", "", '2', "busybox"}}),
          test::make_tar({{"etc/", "", '5'}, {"etc/greeting", "hello"}})};
}

std::string host_architecture() { return host_platform().architecture; }

void upload(const DebianRegistry& registry, const ImageBytes& image, const std::string& name,
            const std::string& creds = "") {
  TemporaryDirectory layout;
  test::write_layout(layout.path(), image, "x");
  std::vector<std::string> argv{"skopeo", "copy", "-q", "--all", "--dest-tls-verify=false"};
  if (!creds.empty()) argv.push_back("--dest-creds=" + creds);
  argv.push_back("oci:" + layout.path().string() + ":x");
  argv.push_back("docker://" + registry.host() + "/" + name);
  test::run_program(argv);
}

bool has_line(const std::vector<std::string>& lines, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& l) { return l.find(part) != std::string::npos; });
}

template <class F>
Error error_of(F&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  return Error(Errc::internal, "nothing was thrown");
}

std::vector<std::string> actions(events::Bus& bus) {
  std::vector<std::string> out;
  for (const auto& event : bus.history(std::nullopt, std::nullopt)) out.push_back(event.action);
  return out;
}

TEST(Pull, BringsAnImageAndTellsTheClientAsDockerDoes) {
  DebianRegistry registry;
  const ImageBytes image = test::make_image(two_layers(), host_architecture());
  upload(registry, image, "team/app:1");
  TemporaryDirectory root;
  Machine machine(root.path());
  const std::string name = registry.host() + "/team/app";

  const auto lines = machine.pull(name, "1");
  EXPECT_EQ(lines.front(), "{\"status\":\"Pulling from team/app\",\"id\":\"1\"}\r\n");
  EXPECT_TRUE(has_line(lines, R"({"status":"Pulling fs layer","progressDetail":{},"id":")"));
  EXPECT_TRUE(has_line(lines, R"({"status":"Download complete","progressDetail":{},"id":")"));
  EXPECT_TRUE(has_line(lines, R"({"status":"Pull complete","progressDetail":{},"id":")"));
  ASSERT_GE(lines.size(), 2u);
  EXPECT_EQ(lines[lines.size() - 2], "{\"status\":\"Digest: " + image.manifest.digest + "\"}\r\n");
  EXPECT_EQ(lines.back(), "{\"status\":\"Status: Downloaded newer image for " + name + ":1\"}\r\n");

  const ImagePtr pulled = machine.images->get(name + ":1");
  EXPECT_EQ(pulled->id, image.manifest.digest);
  EXPECT_EQ(pulled->repo_tags, std::vector<std::string>{name + ":1"});
  EXPECT_EQ(pulled->repo_digests, std::vector<std::string>{name + "@" + image.manifest.digest});
  EXPECT_EQ(machine.read_rootfs(*pulled, "etc/greeting"), "hello");
  EXPECT_EQ(pulled->config.Cmd->front(), "/bin/sh");
  EXPECT_GT(pulled->unpacked_size, 5);
  EXPECT_EQ(actions(machine.bus), std::vector<std::string>{"pull"});

  const auto again = machine.pull(name, "1");
  EXPECT_EQ(again.back(), "{\"status\":\"Status: Image is up to date for " + name + ":1\"}\r\n");
  EXPECT_EQ(machine.files_in(machine.paths.tmp()), 0u);
}

TEST(Pull, OutlivesARestartAndHealsALostLayer) {
  DebianRegistry registry;
  upload(registry, test::make_image(two_layers(), host_architecture()), "app:1");
  TemporaryDirectory root;
  const std::string name = registry.host() + "/app:1";
  {
    Machine machine(root.path());
    (void)machine.pull(name);
  }
  {
    Machine machine(root.path());
    EXPECT_TRUE(machine.problems.empty());
    const ImagePtr image = machine.images->get(name);
    EXPECT_EQ(machine.read_rootfs(*image, "etc/greeting"), "hello");
    sys::remove_tree(machine.layers->directory(image->top_chain()).parent_path());
  }
  Machine machine(root.path());
  ASSERT_EQ(machine.problems.size(), 1u);
  EXPECT_NE(machine.problems[0].text.find("is missing"), std::string::npos);
  const ImagePtr image = machine.images->get(name);
  machine.run(machine.images->ensure_unpacked(image));
  EXPECT_EQ(machine.read_rootfs(*image, "etc/greeting"), "hello");
}

TEST(Pull, OfAnIndexTakesOnePlatformAndKeepsTheIndexAsTheImage) {
  DebianRegistry registry;
  const ImageBytes mine = test::make_image(two_layers(), host_architecture());
  const ImageBytes other = test::make_image({test::make_tar({{"other", "other"}})}, "s390x");
  const ImageBytes index =
      test::make_index({other, mine}, {{"linux", "s390x", "", ""}, {"linux", host_architecture(), "", ""}});
  upload(registry, index, "multi:1");
  TemporaryDirectory root;
  Machine machine(root.path());
  const std::string name = registry.host() + "/multi:1";
  (void)machine.pull(name);
  const ImagePtr image = machine.images->get(name);
  EXPECT_EQ(image->id, index.manifest.digest);
  EXPECT_EQ(image->manifest.digest, mine.manifest.digest);
  EXPECT_EQ(image->platform.architecture, host_architecture());
  const Error absent = error_of([&] { (void)machine.images->get(name, Platform{"linux", "s390x", "", ""}); });
  EXPECT_EQ(absent.code(), Errc::not_found);
  auto manifests = machine.images->list_manifests(image->id);
  ASSERT_EQ(manifests.size(), 2u);
  EXPECT_FALSE(manifests[0].available);
  EXPECT_TRUE(manifests[1].available);

  (void)machine.pull(name, "", {}, Platform{"linux", "s390x", "", ""});
  EXPECT_EQ(machine.read_rootfs(*machine.images->get(name, Platform{"linux", "s390x", "", ""}), "other"), "other");
  EXPECT_EQ(machine.images->get(name)->platform.architecture, host_architecture());
  const Error none = error_of([&] { (void)machine.pull(name, "", {}, Platform{"linux", "arm64", "v8", ""}); });
  EXPECT_EQ(none.code(), Errc::not_found);
  EXPECT_EQ(none.message(), "no matching manifest for linux/arm64/v8 in the manifest list entries");
}

TEST(Pull, ByDigestGivesNoTag) {
  DebianRegistry registry;
  const ImageBytes image = test::make_image(two_layers(), host_architecture());
  upload(registry, image, "app:1");
  TemporaryDirectory root;
  Machine machine(root.path());
  const std::string name = registry.host() + "/app@" + image.manifest.digest;
  const auto lines = machine.pull(name);
  EXPECT_EQ(lines.back(), "{\"status\":\"Status: Downloaded newer image for " + name + "\"}\r\n");
  const ImagePtr pulled = machine.images->get(name);
  EXPECT_TRUE(pulled->repo_tags.empty());
  EXPECT_EQ(pulled->repo_digests, std::vector<std::string>{name});
}

TEST(Pull, OfAllTagsBringsEach) {
  DebianRegistry registry;
  upload(registry, test::make_image({test::make_tar({{"a", "1"}})}, host_architecture()), "app:one");
  upload(registry, test::make_image({test::make_tar({{"a", "2"}})}, host_architecture()), "app:two");
  TemporaryDirectory root;
  Machine machine(root.path());
  (void)machine.pull(registry.host() + "/app");
  EXPECT_EQ(machine.read_rootfs(*machine.images->get(registry.host() + "/app:one"), "a"), "1");
  EXPECT_EQ(machine.read_rootfs(*machine.images->get(registry.host() + "/app:two"), "a"), "2");
}

TEST(Pull, FailsWithDockersWords) {
  DebianRegistry registry;
  upload(registry, test::make_image({test::make_tar({{"a", "1"}})}, host_architecture()), "app:one");
  TemporaryDirectory root;
  Machine machine(root.path());
  const Error unknown = error_of([&] { (void)machine.pull(registry.host() + "/app:nope"); });
  EXPECT_EQ(unknown.code(), Errc::not_found);
  EXPECT_EQ(unknown.message(),
            "manifest for " + registry.host() + "/app:nope not found: manifest unknown: manifest unknown");
  const Error refused = error_of([&] { (void)machine.pull("127.0.0.1:1/app:x"); });
  EXPECT_EQ(refused.code(), Errc::internal);
  EXPECT_EQ(refused.message(), R"(Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused)");
  EXPECT_EQ(error_of([&] { (void)machine.pull("scratch"); }).code(), Errc::forbidden);
  EXPECT_EQ(error_of([&] { (void)machine.pull("BAD"); }).message(),
            "invalid reference format: repository name (library/BAD) must be lowercase");
  const Error metadata = error_of([&] { (void)machine.pull("169.254.169.254/x:y"); });
  EXPECT_NE(metadata.message().find("address is not allowed"), std::string::npos) << metadata.message();
}

TEST(Pull, UsesBasicCredentialsAndReportsTheirAbsence) {
  const std::string line = test::run_program({"htpasswd", "-nbB", "-C", "4", "me", "secret"});
  DebianRegistry registry{std::string(trim(line)) + "\n"};
  upload(registry, test::make_image(two_layers(), host_architecture()), "app:1", "me:secret");
  TemporaryDirectory root;
  Machine machine(root.path());
  const std::string name = registry.host() + "/app:1";
  const Error anonymous = error_of([&] { (void)machine.pull(name); });
  EXPECT_EQ(anonymous.code(), Errc::unauthorized);
  EXPECT_EQ(anonymous.message(), "unauthorized: authentication required");
  RegistryAuth wrong;
  wrong.username = "me";
  wrong.password = "wrong";
  wrong.server_address = registry.host();
  EXPECT_EQ(error_of([&] { (void)machine.pull(name, "", wrong); }).code(), Errc::unauthorized);
  EXPECT_EQ(error_of([&] { (void)machine.run(machine.transfers->log_in(wrong)); }).code(), Errc::unauthorized);
  RegistryAuth right = wrong;
  right.password = "secret";
  EXPECT_EQ(machine.run(machine.transfers->log_in(right)).status, "Login Succeeded");
  (void)machine.pull(name, "", right);
  EXPECT_TRUE(machine.images->find(name));
  const DistributionInfo info = machine.run(machine.transfers->inspect_remote(name, right));
  EXPECT_EQ(info.descriptor.digest, machine.images->get(name)->id);
  EXPECT_EQ(info.platforms.at(0).architecture, host_architecture());
}

TEST(Pull, FetchesABearerTokenOnceAndSendsItOnlyToItsRegistry) {
  FakeRegistry registry, storage;
  const ImageBytes image = test::make_image(two_layers(), host_architecture());
  registry.serve(image);
  storage.serve(image);
  registry.intercept([&](const FakeRegistry::Request& r) -> std::optional<FakeRegistry::Reply> {
    FakeRegistry::Reply reply;
    if (r.path.starts_with("/token")) {
      EXPECT_EQ(r.headers.at("authorization"), "Basic " + base64_encode("me:secret"));
      EXPECT_NE(r.path.find("scope=repository%3Aapp%3Apull"), std::string::npos) << r.path;
      reply.body = R"({"token":"T","expires_in":300})";
      return reply;
    }
    const auto auth = r.headers.find("authorization");
    if (auth == r.headers.end() || auth->second != "Bearer T") {
      reply.status = 401;
      reply.headers = {"WWW-Authenticate: Bearer realm=\"http://" + registry.host() + "/token\",service=\"s\""};
      return reply;
    }
    if (r.path.find("/blobs/") == std::string::npos) return std::nullopt;
    reply.status = 307;
    reply.headers = {"Location: http://" + storage.host() + r.path};
    return reply;
  });
  TemporaryDirectory root;
  Machine machine(root.path());
  RegistryAuth auth;
  auth.username = "me";
  auth.password = "secret";
  (void)machine.pull(registry.host() + "/app:1", "", auth);
  int tokens = 0;
  for (const auto& r : registry.requests()) tokens += r.path.starts_with("/token") ? 1 : 0;
  EXPECT_EQ(tokens, 1);
  EXPECT_FALSE(storage.requests().empty());
  for (const auto& r : storage.requests()) EXPECT_FALSE(r.headers.contains("authorization"));
}

TEST(Pull, OfWhatATokenDoesNotCoverIsDeniedAsNotFound) {
  FakeRegistry registry;
  registry.intercept([&](const FakeRegistry::Request& r) -> std::optional<FakeRegistry::Reply> {
    FakeRegistry::Reply reply;
    if (r.path.starts_with("/token")) {
      reply.body = R"({"access_token":"T"})";
      return reply;
    }
    reply.status = 401;
    reply.headers = {"WWW-Authenticate: Bearer realm=\"http://" + registry.host() + "/token\",service=\"s\"" +
                     (r.headers.contains("authorization") ? ",error=\"insufficient_scope\"" : "")};
    reply.body = R"({"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]})";
    return reply;
  });
  TemporaryDirectory root;
  Machine machine(root.path());
  const Error denied = error_of([&] { (void)machine.pull(registry.host() + "/foo:1"); });
  EXPECT_EQ(denied.code(), Errc::not_found);
  EXPECT_EQ(denied.message(), "pull access denied for " + registry.host() +
                                  "/foo, repository does not exist or may require 'docker login': "
                                  "denied: requested access to the resource is denied");
}

TEST(Pull, ResumesAfterDroppedConnections) {
  FakeRegistry registry;
  const std::string tar = test::make_tar({{"big", noise(3 << 20, 1)}});
  const ImageBytes image = test::make_image({tar}, host_architecture());
  registry.serve(image);
  std::atomic<int> drops{0};
  registry.intercept([&](const FakeRegistry::Request& r) -> std::optional<FakeRegistry::Reply> {
    if (r.path.find("/blobs/") == std::string::npos || r.path.ends_with(image.config_digest) || drops >= 3)
      return std::nullopt;
    ++drops;
    const auto& bytes = image.blobs.at(r.path.substr(r.path.rfind('/') + 1));
    FakeRegistry::Reply reply;
    std::size_t offset = 0;
    if (r.headers.contains("range")) {
      offset =
          std::size_t(*parse_int(std::string_view(r.headers.at("range")).substr(6, r.headers.at("range").size() - 7)));
      reply.status = 206;
    }
    reply.body = bytes.substr(offset);
    reply.cut_after = 700'000;
    return reply;
  });
  TemporaryDirectory root;
  Machine machine(root.path());
  (void)machine.pull(registry.host() + "/app:1");
  EXPECT_EQ(machine.read_rootfs(*machine.images->get(registry.host() + "/app:1"), "big"), noise(3 << 20, 1));
  int ranges = 0;
  for (const auto& r : registry.requests()) ranges += r.headers.contains("range") ? 1 : 0;
  EXPECT_EQ(ranges, 3);
}

TEST(Pull, RetriesWhatBringsNothingAndThenGivesUpLeavingNothing) {
  FakeRegistry registry;
  const ImageBytes image = test::make_image(two_layers(), host_architecture());
  registry.serve(image);
  registry.intercept([&](const FakeRegistry::Request& r) -> std::optional<FakeRegistry::Reply> {
    if (r.path.find("/blobs/") == std::string::npos || r.path.ends_with(image.config_digest)) return std::nullopt;
    FakeRegistry::Reply reply;
    reply.status = 503;
    return reply;
  });
  TemporaryDirectory root;
  Machine machine(root.path());
  PullRequest request;
  request.image = registry.host() + "/app:1";
  std::string error;
  const auto lines = machine.lines([&](ProgressPtr p) { return machine.transfers->pull(request, p); }, &error);
  EXPECT_EQ(error, "received unexpected HTTP status: 503 Service Unavailable");
  EXPECT_TRUE(has_line(lines, "Retrying in 1 second"));
  EXPECT_FALSE(machine.images->find(request.image));
  EXPECT_EQ(machine.run(machine.images->collect_garbage()) > 0, true);
  EXPECT_TRUE(machine.content->list().empty());
  EXPECT_EQ(machine.files_in(machine.paths.blobs()), 0u);
  EXPECT_EQ(machine.files_in(machine.paths.tmp()), 0u);
}

TEST(Pull, RefusesBlobsThatAreNotWhatTheManifestSays) {
  FakeRegistry registry;
  ImageBytes image = test::make_image(two_layers(), host_architecture());
  const Manifest manifest = parse_manifest(image.blobs.at(image.manifest.digest));
  std::string& blob = image.blobs.at(manifest.layers[1].digest);
  blob.back() = static_cast<char>(blob.back() + 1);
  registry.serve(image);
  TemporaryDirectory root;
  Machine machine(root.path());
  EXPECT_EQ(error_of([&] { (void)machine.pull(registry.host() + "/app:1"); }).code(), Errc::corrupted);
  EXPECT_FALSE(machine.images->find(registry.host() + "/app:1"));

  // Longer than announced, for ever.
  blob = noise(1 << 20, 3);
  registry.serve(image);
  EXPECT_EQ(error_of([&] { (void)machine.pull(registry.host() + "/app:1"); }).code(), Errc::corrupted);

  // A manifest whose bytes have another digest than the one asked for.
  ImageBytes lying = test::make_image(two_layers(), host_architecture());
  lying.blobs.at(lying.manifest.digest) += " ";
  registry.serve(lying);
  const Error wrong = error_of([&] { (void)machine.pull(registry.host() + "/app@" + lying.manifest.digest); });
  EXPECT_EQ(wrong.code(), Errc::corrupted);
}

TEST(Pull, OfTheSameLayersAtTheSameTimeFetchesThemOnce) {
  FakeRegistry registry;
  const ImageBytes image = test::make_image({test::make_tar({{"big", noise(8 << 20, 5)}})}, host_architecture());
  registry.serve(image);
  TemporaryDirectory root;
  Machine machine(root.path());
  int finished = 0;
  async::TaskGroup pulls(machine.loop.get_executor());
  for (const char* name : {"/one:1", "/two:1", "/three:1"}) {
    PullRequest request;
    request.image = registry.host() + name;
    auto task = [](Machine* m, PullRequest r, int* count) -> Task<void> {
      co_await m->transfers->pull(std::move(r), std::make_shared<Progress>());
      ++*count;
    };
    pulls.spawn(name, task(&machine, std::move(request), &finished));
  }
  machine.run(pulls.join());
  EXPECT_EQ(finished, 3);
  const Manifest manifest = parse_manifest(image.blobs.at(image.manifest.digest));
  int fetches = 0;
  for (const auto& r : registry.requests()) fetches += r.path.ends_with(manifest.layers[0].digest) ? 1 : 0;
  EXPECT_EQ(fetches, 1);
  EXPECT_EQ(machine.images->get(registry.host() + "/two:1")->repo_tags.size(), 3u);
}

TEST(Pull, ThatIsCancelledLeavesNothingAndHoldsNobodyUp) {
  const ImageBytes image = test::make_image({test::make_tar({{"big", noise(2 << 20, 6)}})}, host_architecture());
  std::mutex gate;
  gate.lock();
  FakeRegistry registry;  // its threads use what stands above
  registry.serve(image);
  registry.intercept([&](const FakeRegistry::Request& r) -> std::optional<FakeRegistry::Reply> {
    if (r.path.find("/slow/blobs/") == std::string::npos || r.path.ends_with(image.config_digest)) return std::nullopt;
    std::lock_guard wait(gate);
    return std::nullopt;
  });
  TemporaryDirectory root;
  Machine machine(root.path());
  boost::asio::cancellation_signal cancel;
  bool ended = false;
  PullRequest slow;
  slow.image = registry.host() + "/slow:1";
  boost::asio::co_spawn(machine.loop, machine.transfers->pull(slow, std::make_shared<Progress>()),
                        boost::asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr error) {
                          EXPECT_TRUE(error);
                          ended = true;
                        }));
  auto wait_for_request = [](FakeRegistry* r) -> Task<void> {
    for (;;) {
      for (const auto& request : r->requests())
        if (request.path.find("/slow/blobs/") != std::string::npos) co_return;
      co_await async::sleep_for(std::chrono::milliseconds(5));
    }
  };
  machine.run(wait_for_request(&registry));
  cancel.emit(boost::asio::cancellation_type::terminal);
  auto settle = [](bool* done) -> Task<void> {
    while (!*done) co_await async::sleep_for(std::chrono::milliseconds(5));
    co_await async::sleep_for(std::chrono::milliseconds(50));
  };
  machine.run(settle(&ended));
  gate.unlock();
  EXPECT_FALSE(machine.images->find(slow.image));
  (void)machine.run(machine.images->collect_garbage());
  EXPECT_EQ(machine.files_in(machine.paths.tmp()), 0u);
  EXPECT_EQ(machine.files_in(machine.paths.blobs()), 0u);
}

TEST(Push, BringsBackTheSameDigest) {
  DebianRegistry from, to;
  const ImageBytes image = test::make_image(two_layers(), host_architecture());
  upload(from, image, "app:1");
  TemporaryDirectory root;
  Machine machine(root.path());
  (void)machine.pull(from.host() + "/app:1");
  machine.run(machine.images->tag(from.host() + "/app:1", to.host() + "/copy", "2"));
  PushRequest request;
  request.image = to.host() + "/copy";
  request.tag = "2";
  const auto push = [&](ProgressPtr p) { return machine.transfers->push(request, p); };
  const auto lines = machine.lines(push);
  EXPECT_EQ(lines.front(), "{\"status\":\"The push refers to repository [" + to.host() + "/copy]\"}\r\n");
  EXPECT_TRUE(has_line(lines, "\"Pushed\""));
  EXPECT_TRUE(has_line(lines, "2: digest: " + image.manifest.digest + " size: "));
  EXPECT_TRUE(has_line(machine.lines(push), "Layer already exists"));
  const std::string digest = test::run_program(
      {"skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://" + to.host() + "/copy:2"});
  EXPECT_EQ(trim(digest), image.manifest.digest);
  request.image = "nope";
  std::string error;
  const auto failed = machine.lines(push, &error);
  EXPECT_EQ(failed.size(), 1u);
  EXPECT_EQ(error, "An image does not exist locally with the tag: nope");
}

}  // namespace
}  // namespace gantry::image
