#include "api/volume_routes.hpp"

#include "api/test_server.hpp"
#include "db/sqlite.hpp"

namespace gantry::api {
namespace {

class VolumeRoutesTest : public testing::Test {
 protected:
  VolumeRoutesTest() {
    paths_.data_root = directory_.file("root");
    std::filesystem::create_directories(paths_.data_root);
    db_ = std::make_unique<db::Db>(paths_.database());
    volumes_ = std::make_unique<volume::Volumes>(paths_, *db_, lanes_, nullptr);
    routes_ = std::make_unique<VolumeRoutes>(*volumes_);
    server_ = std::make_unique<TestServer>([this](Router& router) { routes_->add_to(router); });
  }

  std::string ask(const std::string& text) {
    TestClient client(*server_);
    client.send(text);
    return client.receive_reply();
  }
  std::string get(const std::string& target) { return ask(get_request(target)); }
  std::string post(const std::string& target, const std::string& body) {
    return ask(post_request(target, body, "Content-Type: application/json\r\n"));
  }
  std::string remove(const std::string& target) {
    return ask("DELETE " + target + " HTTP/1.1\r\nHost: docker\r\n\r\n");
  }

  TestDirectory directory_;
  sys::Paths paths_;
  async::Lanes lanes_;
  std::unique_ptr<db::Db> db_;
  std::unique_ptr<volume::Volumes> volumes_;
  std::unique_ptr<VolumeRoutes> routes_;
  std::unique_ptr<TestServer> server_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(VolumeRoutesTest, CreateListInspectRemove) {
  EXPECT_HAS(get("/volumes"), R"({"Volumes":[],"Warnings":null})");
  const auto made = post("/volumes/create", R"({"Name":"data","Labels":{"a":"b"}})");
  EXPECT_HAS(made, "HTTP/1.1 201");
  EXPECT_HAS(made, R"("Driver":"local","Labels":{"a":"b"},"Mountpoint":")");
  EXPECT_HAS(made, R"("Name":"data","Options":null,"Scope":"local"})");
  EXPECT_EQ(made.find("UsageData"), std::string::npos);
  EXPECT_HAS(get("/v1.41/volumes/data"), "HTTP/1.1 200");
  EXPECT_HAS(get("/volumes?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D"), R"("Name":"data")");
  EXPECT_HAS(get("/volumes?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D"), R"("Volumes":[])");
  EXPECT_HAS(get("/volumes?filters=%7B%22bogus%22%3A%5B%22x%22%5D%7D"), "HTTP/1.1 400");
  EXPECT_HAS(remove("/volumes/data"), "HTTP/1.1 204");
  EXPECT_HAS(remove("/volumes/data"), "HTTP/1.1 404");
  EXPECT_HAS(remove("/volumes/data?force=1"), "HTTP/1.1 204");
  EXPECT_HAS(get("/volumes/data"), R"({"message":"get data: no such volume"})");
}

TEST_F(VolumeRoutesTest, PruneFollowsTheVersion) {
  post("/volumes/create", R"({"Name":"named"})");
  post("/volumes/create", R"({})");
  const auto pruned = post("/v1.42/volumes/prune", "");
  EXPECT_EQ(pruned.find("named"), std::string::npos) << pruned;
  EXPECT_HAS(pruned, R"({"VolumesDeleted":[")");
  EXPECT_HAS(post("/v1.41/volumes/prune", ""), R"({"VolumesDeleted":["named"],"SpaceReclaimed":)");
}

TEST_F(VolumeRoutesTest, ClusterVolumesNeedASwarm) {
  EXPECT_HAS(ask("PUT /volumes/x?version=1 HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\n{}"), "HTTP/1.1 503");
  EXPECT_HAS(post("/volumes/create", R"({"Name":"xx","ClusterVolumeSpec":{}})"), "HTTP/1.1 503");
}

}  // namespace
}  // namespace gantry::api
