#include "api/system_routes.hpp"

#include "api/event_stream.hpp"
#include "api/test_server.hpp"
#include "api/unsupported_routes.hpp"

namespace gantry::api {
namespace {

using namespace std::chrono_literals;

class FixedSource final : public engine::SystemSource {
 public:
  Task<engine::SystemInfo> info() override {
    engine::SystemInfo out;
    out.ID = "id";
    out.SecurityOptions = {"name=seccomp,profile=builtin"};
    out.RuncCommit.ID = "abc";
    out.Runtimes["runc"].path = "runc";
    out.Runtimes["runc"].status.emplace();
    co_return out;
  }
  engine::SystemVersion version() override {
    engine::SystemVersion out;
    out.Version = "28.0.0";
    out.Components.push_back({"Engine", "28.0.0", {}});
    return out;
  }
};

struct Fixture {
  FixedSource source;
  events::Bus bus;
  async::Operations operations;
  Metrics metrics;
  SystemRoutes routes{source, bus, operations};
  TestServer server{[this](Router& router) {
    metrics.counter("gantry_starts_total", "Started containers.", "{kind=\"a\"}").add(2);
    metrics.gauge("gantry_connections", "Clients.", [] { return 3.0; });
    routes.set_metrics(&metrics);
    routes.provide_disk_usage("volume", [](ApiVersion) -> Task<DiskUsageKind> {
      DiskUsageKind kind;
      kind.total_count = 1;
      kind.total_size = 7;
      kind.items.push_back("v");
      co_return kind;
    });
    routes.add_to(router);
    add_unsupported_routes(router);
  }};

  std::string body(const std::string& request) {
    TestClient client(server);
    client.send(request);
    const std::string reply = client.receive_reply();
    return reply.substr(reply.find("\r\n\r\n") + 4);
  }
  std::string get(const std::string& target) { return body(get_request(target)); }
  std::string status_of(const std::string& method, const std::string& target) {
    TestClient client(server);
    client.send(method + " " + target + " HTTP/1.1\r\nHost: d\r\n\r\n");
    return client.receive_reply().substr(9, 3);
  }
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(SystemRoutes, AnswerPing) {
  Fixture f;
  TestClient client(f.server);
  client.send("HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
  const std::string head = client.receive_until("\r\n\r\n");
  for (const char* line : {"HTTP/1.1 200 OK\r\n", "Api-Version: 1.56\r\n", "Builder-Version: 1\r\n",
                           "Swarm: inactive\r\n", "Pragma: no-cache\r\n", "Content-Type: text/plain; charset=utf-8\r\n",
                           "Content-Length: 0\r\n", "Cache-Control: no-cache, no-store, must-revalidate\r\n"})
    EXPECT_TRUE(has(head, line)) << line;
  client.send(get_request("/v1.24/_ping"));
  EXPECT_TRUE(client.receive_reply().ends_with("\r\n\r\nOK"));
}

TEST(SystemRoutes, RenderVersionAndInfoForOldAndNewClients) {
  Fixture f;
  const std::string version = f.get("/version");
  EXPECT_TRUE(has(version, R"("ApiVersion":"1.56","MinAPIVersion":"1.24")")) << version;
  EXPECT_TRUE(has(version, R"("Details":{"ApiVersion":"1.56","MinAPIVersion":"1.24"})"));
  const std::string fresh = f.get("/info");
  EXPECT_TRUE(has(fresh, R"("RuncCommit":{"ID":"abc"})")) << fresh;
  EXPECT_TRUE(has(fresh, R"("FirewallBackend":{"Driver":"nftables"})"));
  EXPECT_TRUE(has(fresh, R"("status":{})"));
  EXPECT_TRUE(has(fresh, R"("LocalNodeState":"inactive")"));
  const std::string old = f.get("/v1.24/info");
  EXPECT_TRUE(has(old, R"("RuncCommit":{"ID":"abc","Expected":"abc"})")) << old;
  EXPECT_TRUE(has(old, R"("BridgeNfIptables":false)"));
  EXPECT_TRUE(has(old, R"("SecurityOptions":["seccomp"])"));
  EXPECT_FALSE(has(old, "FirewallBackend"));
  EXPECT_FALSE(has(old, "\"status\""));
}

TEST(SystemRoutes, RenderDiskUsageInBothShapes) {
  Fixture f;
  EXPECT_EQ(
      f.get("/v1.51/system/df"),
      "{\"LayersSize\":0,\"Images\":[],\"Containers\":[],\"Volumes\":[\"v\"],\"BuildCache\":[],\"BuilderSize\":0}\n");
  EXPECT_EQ(
      f.get("/v1.52/system/df?type=volume&verbose=1"),
      "{\"VolumeUsage\":{\"ActiveCount\":0,\"TotalCount\":1,\"Reclaimable\":0,\"TotalSize\":7,\"Items\":[\"v\"]}}\n");
  EXPECT_EQ(f.get("/system/df?type=nope"), "{\"message\":\"unknown object type: nope\"}\n");
}

TEST(SystemRoutes, AnswerForWhatIsNotSupported) {
  Fixture f;
  EXPECT_EQ(f.status_of("GET", "/swarm"), "503");
  EXPECT_EQ(f.status_of("GET", "/v1.41/services"), "503");
  EXPECT_EQ(f.status_of("DELETE", "/nodes/x"), "503");
  EXPECT_EQ(f.status_of("POST", "/swarm/leave"), "503");
  EXPECT_EQ(f.status_of("GET", "/v1.29/configs"), "400");
  EXPECT_EQ(f.get("/plugins"), "[]\n");
  EXPECT_EQ(f.get("/plugins/a/b/json"), "{\"message\":\"plugin \\\"a/b\\\" not found\"}\n");
  EXPECT_EQ(f.status_of("GET", "/containers/x/checkpoints"), "501");
}

TEST(SystemRoutes, ShowOperationsAndMetrics) {
  Fixture f;
  const auto operation = f.operations.begin("container.start", "web");
  operation->step("mounting");
  EXPECT_TRUE(has(f.get("/debug/ops"), R"({"What":"container.start","Subject":"web","Step":"mounting",)"));
  EXPECT_EQ(f.get("/metrics"),
            "# HELP gantry_connections Clients.\n# TYPE gantry_connections gauge\ngantry_connections 3\n"
            "# HELP gantry_starts_total Started containers.\n# TYPE gantry_starts_total counter\n"
            "gantry_starts_total{kind=\"a\"} 2\n");
}

events::Event start_event() {
  events::Event out;
  out.type = "container";
  out.action = "start";
  out.actor_id = "abc";
  out.attributes = {{"image", "docker.io/library/bb:1"}, {"name", "web"}, {"tier", "front"}};
  out.time = Timestamp(std::chrono::nanoseconds(1795354204718340468));
  return out;
}

TEST(Events, StreamAtOnceAndWithLegacyFields) {
  Fixture f;
  TestClient client(f.server);
  client.send(get_request("/v1.51/events?filters=%7B%22container%22%3A%5B%22we%22%5D%7D"));
  EXPECT_TRUE(has(client.receive_until("\r\n\r\n"), "Content-Type: application/json\r\n"));
  f.server.on_loop([&] {
    f.bus.publish("container", "start", "other", {{"name", "db"}});
    f.bus.publish("container", "start", "abc", {{"name", "web"}, {"image", "bb"}});
  });
  (void)client.receive_until("\r\n");
  EXPECT_EQ(client.receive_until("\"time\"").find(R"({"status":"start","id":"abc","from":"bb","Type":"container",)"),
            0U);
}

TEST(Events, ReplayThePastAndEnd) {
  Fixture f;
  f.server.on_loop([&] {
    for (const char* id : {"one", "two"}) f.bus.publish("network", "create", id, {});
  });
  TestClient client(f.server);
  const std::int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(now().time_since_epoch()).count();
  client.send(get_request("/events?since=0&until=" + std::to_string(seconds + 1), "Accept: application/json-seq\r\n"));
  const std::string head = client.receive_until("\r\n\r\n");
  EXPECT_TRUE(has(head, "Content-Type: application/json-seq\r\n"));
  f.server.on_loop([&] { f.bus.publish("network", "create", "three", {}); });
  const std::string all = client.receive_until("0\r\n\r\n");
  EXPECT_TRUE(has(all, "\x1e{\"Type\":\"network\",\"Action\":\"create\",\"Actor\":{\"ID\":\"one\",\"Attributes\":{}}"));
  EXPECT_TRUE(has(all, "\"two\""));
  EXPECT_TRUE(has(all, "\"three\""));
}

TEST(Events, RefuseBadTimes) {
  Fixture f;
  EXPECT_TRUE(has(f.get("/events?since=x"), "invalid value for 'since'"));
  EXPECT_TRUE(has(f.get("/events?since=10&until=5"), "cannot be after"));
}

TEST(Events, MatchFiltersAsDockerDoes) {
  const events::Event event = start_event();
  auto matches = [&](std::map<std::string, std::set<std::string>> filters) {
    return event_matches(event, Filters(std::move(filters)));
  };
  EXPECT_TRUE(matches({}));
  EXPECT_TRUE(matches({{"type", {"container"}}, {"event", {"start", "die"}}}));
  EXPECT_FALSE(matches({{"event", {"die"}}}));
  EXPECT_TRUE(matches({{"container", {"ab"}}}));
  EXPECT_TRUE(matches({{"image", {"bb"}}}));
  EXPECT_FALSE(matches({{"image", {"b"}}}));
  EXPECT_TRUE(matches({{"label", {"tier=front"}}}));
  EXPECT_FALSE(matches({{"label", {"tier=front", "x"}}}));
  EXPECT_TRUE(matches({{"no-such-filter", {"x"}}}));
  events::Event health = start_event();
  health.action = "health_status: healthy";
  EXPECT_TRUE(event_matches(health, Filters({{"event", {"health_status"}}})));
  EXPECT_FALSE(event_matches(health, Filters({{"event", {"health"}}})));
  EXPECT_EQ(
      render_event(event, {1, 52}),
      R"({"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"docker.io/library/bb:1",)"
      R"("name":"web","tier":"front"}},"scope":"local","time":1795354204,"timeNano":1795354204718340468})");
}

}  // namespace
}  // namespace gantry::api
