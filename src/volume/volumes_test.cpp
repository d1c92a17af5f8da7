#include "volume/volumes.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include <sys/mount.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "db/sqlite.hpp"
#include "db/volume_rows.hpp"
#include "sys/mount.hpp"
#include "volume/local_mount.hpp"

namespace gantry::volume {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;

class VolumesTest : public testing::Test {
 protected:
  void SetUp() override {
    paths_.data_root = "/tmp/gantry-volumes-" + random_id().substr(0, 8);
    fs::create_directories(paths_.data_root);
    open();
  }
  void TearDown() override {
    volumes_.reset();
    (void)sys::unmount_all(paths_.data_root);
    fs::remove_all(paths_.data_root);
  }

  /// As after a restart of the daemon.
  RecoverReport open() {
    volumes_.reset();
    db_.reset();
    db_ = std::make_unique<db::Db>(paths_.database());
    volumes_ = std::make_unique<Volumes>(paths_, *db_, lanes_,
                                         [this](const VolumeEvent& e) { actions_.push_back(e.action + " " + e.name); });
    return run(volumes_->recover());
  }

  template <class T>
  T run(Task<T> task) {
    std::exception_ptr failure;
    if constexpr (std::is_void_v<T>) {
      asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr e) { failure = e; });
      loop_.restart();
      loop_.run();
      if (failure) std::rethrow_exception(failure);
    } else {
      std::optional<T> result;
      asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr e, T value) {
        failure = e;
        result = std::move(value);
      });
      loop_.restart();
      loop_.run();
      if (failure) std::rethrow_exception(failure);
      return std::move(*result);
    }
  }

  template <class T>
  std::pair<Errc, std::string> error_of(Task<T> task) {
    try {
      run(std::move(task));
    } catch (const Error& e) {
      return {e.code(), e.message()};
    }
    return {Errc::internal, "no error"};
  }

  Volume create(std::string name, std::map<std::string, std::string> options = {}) {
    CreateVolume request;
    request.name = std::move(name);
    request.options = std::move(options);
    return run(volumes_->create(std::move(request)));
  }
  Task<Volume> creation(std::string name, std::map<std::string, std::string> options = {}, std::string driver = "") {
    CreateVolume request;
    request.name = std::move(name);
    request.options = std::move(options);
    request.driver = std::move(driver);
    return volumes_->create(std::move(request));
  }
  asio::io_context loop_{1};
  sys::Paths paths_;
  async::Lanes lanes_;
  std::vector<std::string> actions_;
  std::unique_ptr<db::Db> db_;
  std::unique_ptr<Volumes> volumes_;
};

using Pair = std::pair<Errc, std::string>;

TEST_F(VolumesTest, CreatedVolumeLastsAcrossARestart) {
  CreateVolume request;
  request.name = "data";
  request.labels = {{"team", "a"}};
  const Volume made = run(volumes_->create(request));
  EXPECT_EQ(made.mountpoint, (paths_.volumes() / "data/_data").string());
  EXPECT_TRUE(fs::is_directory(made.mountpoint));
  EXPECT_TRUE(open().messages.empty());
  const Volume again = volumes_->get("data");
  EXPECT_EQ(again.labels, made.labels);
  EXPECT_EQ(again.created, made.created);
  EXPECT_EQ(actions_, std::vector<std::string>{"create data"});
}

TEST_F(VolumesTest, CreatingTwiceGivesTheFirst) {
  const Volume first = create("data");
  CreateVolume request;
  request.name = "data";
  request.labels = {{"new", "label"}};
  EXPECT_TRUE(run(volumes_->create(request)).labels.empty());
  EXPECT_EQ(volumes_->list().size(), 1u);
}

TEST_F(VolumesTest, AnonymousOneGetsANameAndALabel) {
  const Volume made = create("");
  EXPECT_EQ(made.name.size(), 64u);
  EXPECT_TRUE(made.anonymous);
  EXPECT_EQ(made.labels.count("com.docker.volume.anonymous"), 1u);
}

TEST_F(VolumesTest, TextsAreDockers) {
  EXPECT_EQ(error_of(creation("/bad")),
            Pair(Errc::invalid_argument,
                 "create /bad: \"/bad\" includes invalid characters for a local volume name, only "
                 "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute "
                 "path"));
  EXPECT_EQ(error_of(creation("..")).first, Errc::invalid_argument);
  EXPECT_EQ(error_of(creation("x")).first, Errc::invalid_argument);
  EXPECT_EQ(error_of(creation("xx", {}, "flocker")),
            Pair(Errc::not_found, "create xx: error looking up volume plugin flocker: plugin \"flocker\" not found"));
  EXPECT_EQ(error_of(creation("xx", {{"bogus", "1"}})),
            Pair(Errc::invalid_argument, "create xx: invalid option: \"bogus\""));
  EXPECT_EQ(error_of(creation("xx", {{"type", "tmpfs"}})),
            Pair(Errc::invalid_argument, "create xx: missing required option: \"device\""));
  EXPECT_EQ(error_of(volumes_->remove("nope", false)), Pair(Errc::not_found, "get nope: no such volume"));
  EXPECT_EQ(error_of(volumes_->remove("nope", true)).second, "no error");
}

TEST_F(VolumesTest, VolumeOfAnyContainerIsInUse) {
  create("data");
  run(volumes_->acquire("c1", "data"));
  run(volumes_->acquire("c2", "data"));
  run(volumes_->acquire("c2", "data"));
  EXPECT_EQ(error_of(volumes_->remove("data", true)), Pair(Errc::conflict, "remove data: volume is in use - [c1, c2]"));
  open();
  EXPECT_EQ(volumes_->users("data"), (std::vector<std::string>{"c1", "c2"}));
  run(volumes_->release("c1", "data"));
  run(volumes_->release_all("c2"));
  run(volumes_->remove("data", false));
  EXPECT_FALSE(fs::exists(paths_.volumes() / "data"));
  EXPECT_FALSE(volumes_->find("data").has_value());
  open();
  EXPECT_TRUE(volumes_->list().empty());
}

TEST_F(VolumesTest, PruneTakesAnonymousOnesOnlyUnlessTold) {
  const Volume anonymous = create("");
  const Volume used = create("");
  create("named");
  create("mounted", {{"type", "tmpfs"}, {"device", "tmpfs"}});
  run(volumes_->acquire("c1", used.name));
  std::ofstream(fs::path(anonymous.mountpoint) / "file") << std::string(100000, 'x');
  const PruneReport first = run(volumes_->prune({}));
  EXPECT_EQ(first.removed, std::vector<std::string>{anonymous.name});
  EXPECT_GE(first.reclaimed_bytes, 100000u);
  PruneFilter all;
  all.all = true;
  all.matches = [](const Volume& v) { return v.name != "other"; };
  EXPECT_EQ(run(volumes_->prune(all)).removed, std::vector<std::string>{"named"});
  EXPECT_EQ(volumes_->list().size(), 2u);
}

TEST_F(VolumesTest, DriverOptionsAreMountedWhileUsed) {
  const Volume made = create("ram", {{"type", "tmpfs"}, {"device", "tmpfs"}, {"o", "size=1m,uid=7,nosuid"}});
  EXPECT_FALSE(sys::is_mount_point(made.mountpoint));
  EXPECT_EQ(run(volumes_->mount("c1", "ram")), sys::Path(made.mountpoint));
  run(volumes_->mount("c2", "ram"));
  run(volumes_->mount("c2", "ram"));
  ASSERT_TRUE(sys::is_mount_point(made.mountpoint));
  EXPECT_EQ(sys::list_mounts(sys::Path(made.mountpoint)).size(), 1u);
  EXPECT_NE(sys::list_mounts(sys::Path(made.mountpoint))[0].options.find("nosuid"), std::string::npos);
  std::ofstream(fs::path(made.mountpoint) / "x") << "1";
  run(volumes_->unmount("c1", "ram"));
  EXPECT_TRUE(sys::is_mount_point(made.mountpoint));
  run(volumes_->unmount_all("c2"));
  EXPECT_FALSE(sys::is_mount_point(made.mountpoint));
  EXPECT_EQ(run(volumes_->measure("ram")), 0u);
}

TEST_F(VolumesTest, BindOptionsLeadToTheOtherDirectory) {
  const fs::path other = paths_.data_root / "other";
  fs::create_directories(other);
  std::ofstream(other / "seen") << "1";
  const Volume made = create("linked", {{"type", "none"}, {"device", other.string()}, {"o", "bind,ro"}});
  run(volumes_->mount("c1", "linked"));
  EXPECT_TRUE(fs::exists(fs::path(made.mountpoint) / "seen"));
  EXPECT_FALSE(std::ofstream(fs::path(made.mountpoint) / "new").good());
  run(volumes_->unmount("c1", "linked"));
  run(volumes_->remove("linked", false));
  EXPECT_TRUE(fs::exists(other / "seen"));

  create("broken", {{"type", "none"}, {"device", "/nonesuch"}, {"o", "bind"}});
  const std::string text = error_of(volumes_->mount("c1", "broken")).second;
  EXPECT_NE(text.find("error while mounting volume '" + (paths_.volumes() / "broken/_data").string() +
                      "': failed to mount local volume: mount /nonesuch:"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("no such file or directory"), std::string::npos) << text;
}

TEST_F(VolumesTest, RestartFindsTheMountAndSweepsWhatNobodyUses) {
  const Volume made = create("ram", {{"type", "tmpfs"}, {"device", "tmpfs"}});
  run(volumes_->acquire("c1", "ram"));
  run(volumes_->mount("c1", "ram"));
  std::ofstream(fs::path(made.mountpoint) / "kept") << "1";
  open();
  run(volumes_->mount("c1", "ram"));  // the engine adopts its running container
  run(volumes_->forget_other_containers({"c1"}));
  EXPECT_TRUE(fs::exists(fs::path(made.mountpoint) / "kept"));
  open();
  run(volumes_->forget_other_containers({}));
  EXPECT_FALSE(sys::is_mount_point(made.mountpoint));
  EXPECT_TRUE(volumes_->users("ram").empty());
}

TEST_F(VolumesTest, FailedCreationLeavesNothing) {
  arm_failpoints("volume.create.after_row=error");
  EXPECT_EQ(error_of(creation("data")).first, Errc::internal);
  arm_failpoints("");
  EXPECT_TRUE(volumes_->list().empty());
  EXPECT_TRUE(db::load_volumes(*db_).empty());
  EXPECT_EQ(create("data").name, "data");
}

TEST_F(VolumesTest, FailedRemovalLeavesTheVolumeWhole) {
  const Volume made = create("data");
  std::ofstream(fs::path(made.mountpoint) / "x") << "1";
  arm_failpoints("volume.remove.after_mark=error");
  EXPECT_EQ(error_of(volumes_->remove("data", false)).first, Errc::internal);
  arm_failpoints("");
  EXPECT_TRUE(open().messages.empty());
  EXPECT_TRUE(fs::exists(fs::path(volumes_->get("data").mountpoint) / "x"));
}

TEST_F(VolumesTest, InterruptedRemovalIsFinishedByTheNextStart) {
  for (const bool directory_left : {true, false}) {
    const Volume made = create("data");
    std::ofstream(fs::path(made.mountpoint) / "x") << "1";
    db::set_volume_removing(*db_, "data", true);
    if (!directory_left) fs::remove_all(paths_.volumes() / "data");
    EXPECT_EQ(open().messages.size(), 1u);
    EXPECT_TRUE(volumes_->list().empty());
    EXPECT_FALSE(fs::exists(paths_.volumes() / "data"));
    EXPECT_TRUE(open().messages.empty());
  }
}

TEST_F(VolumesTest, DamagedRecordDoesNotPreventTheStart) {
  create("good");
  create("bad");
  db_->execute("UPDATE volumes SET labels = '{broken' WHERE name = 'bad'");
  const RecoverReport report = open();
  EXPECT_EQ(report.quarantined, std::vector<std::string>{"bad"});
  EXPECT_TRUE(volumes_->find("good").has_value());
  EXPECT_FALSE(volumes_->find("bad").has_value());
  EXPECT_TRUE(fs::exists(paths_.volumes() / "bad/_data"));
  EXPECT_EQ(error_of(creation("bad")).first, Errc::corrupted);
  run(volumes_->remove("bad", true));
  EXPECT_EQ(create("bad").name, "bad");
}

TEST_F(VolumesTest, DirectoriesWithoutARecordAreAdoptedAndMissingOnesMade) {
  create("data");
  run(volumes_->set_populated("data"));
  fs::remove_all(paths_.volumes() / "data");
  fs::create_directories(paths_.volumes() / "orphan/_data");
  std::ofstream(paths_.volumes() / "orphan/_data/precious") << "1";
  EXPECT_EQ(open().messages.size(), 2u);
  EXPECT_TRUE(fs::is_directory(paths_.volumes() / "data/_data"));
  EXPECT_TRUE(fs::exists(fs::path(volumes_->get("orphan").mountpoint) / "precious"));
  EXPECT_TRUE(open().messages.empty());
}

TEST(LocalOptions, FlagsAndDataAreSeparated) {
  const LocalMount m =
      parse_local_options({{"type", "nfs"}, {"device", ":/export"}, {"o", "addr=10.0.0.1,ro,vers=4,noexec"}});
  EXPECT_EQ(m.flags, static_cast<unsigned long>(MS_RDONLY | MS_NOEXEC));
  EXPECT_EQ(m.data, "addr=10.0.0.1,vers=4");
  EXPECT_EQ(m.address, "10.0.0.1");
}

}  // namespace
}  // namespace gantry::volume
