#include "storage/rootfs.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "base/error.hpp"
#include "db/sqlite.hpp"
#include "storage/test_support.hpp"
#include "storage/tree.hpp"
#include "sys/mount.hpp"

namespace asio = boost::asio;

namespace gantry::storage {
namespace {

using test::TarBuilder;
using test::TemporaryDirectory;

bool is_there(const sys::Path& path) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0;
}

class RootfsTest : public testing::Test {
 protected:
  RootfsTest() {
    paths_.data_root = root_.path();
    paths_.exec_root = root_ / "run";
    db_ = std::make_unique<db::Db>(paths_.database());
    layers_ = std::make_unique<LayerStore>(loop_.get_executor(), lanes_, *db_, paths_);
    run(layers_->recover());
    rootfs_ = std::make_unique<RootfsStore>(lanes_, *layers_, paths_);
    run(rootfs_->recover({}));
  }
  ~RootfsTest() override { run(layers_->stop()); }

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    std::exception_ptr failure;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error, T value) {
      failure = error;
      if (!error) result = std::move(value);
    });
    turn();
    if (failure) std::rethrow_exception(failure);
    return std::move(*result);
  }
  void run(Task<void> task) {
    std::exception_ptr failure;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error) { failure = error; });
    turn();
    if (failure) std::rethrow_exception(failure);
  }
  void turn() {
    loop_.restart();
    loop_.run();
  }
  std::string layer(const std::string& tar, const std::string& parent = "") {
    UnpackRequest request;
    request.parent = parent;
    request.source = make_string_source(tar);
    return run(layers_->unpack(std::move(request))).layer.chain_id;
  }
  std::vector<std::string> changes(const std::string& chain) {
    std::vector<std::string> texts;
    for (const Change& change : run(rootfs_->changes(id_, chain)))
      texts.push_back(std::string(1, "CAD"[static_cast<int>(change.kind)]) + " " + change.path);
    return texts;
  }
  static std::string collect(ByteChannel& channel) { return read_everything(channel, 100 << 20); }

  TemporaryDirectory root_;
  sys::Paths paths_;
  asio::io_context loop_{1};
  async::Lanes lanes_;
  std::unique_ptr<db::Db> db_;
  std::unique_ptr<LayerStore> layers_;
  std::unique_ptr<RootfsStore> rootfs_;
  const ContainerId id_{std::string(64, 'c')};
};

TEST_F(RootfsTest, TellsWhatTheDataRootCanDo) {
  const StorageFacts facts = run(rootfs_->probe());
  EXPECT_EQ(facts.backing_filesystem, "extfs");
  EXPECT_TRUE(facts.supports_d_type);
  EXPECT_TRUE(facts.native_overlay_diff);
  EXPECT_FALSE(facts.metacopy);
  EXPECT_TRUE(sys::list_directory(paths_.tmp()).empty());
}

TEST_F(RootfsTest, SaysWhyADataRootCannotHoldContainers) {
  const sys::Path proc = root_ / "not-for-data";
  sys::make_directories(proc);
  sys::OverlaySpec spec;
  sys::make_directories(root_ / "l");
  sys::make_directories(root_ / "u");
  sys::make_directories(root_ / "w");
  spec.lower = {root_ / "l"};
  spec.upper = root_ / "u";
  spec.work = root_ / "w";
  sys::mount_overlay(spec, proc);
  sys::Paths paths = paths_;
  paths.data_root = proc;
  RootfsStore on_overlay(lanes_, *layers_, paths);
  const std::string message = test::error_of([&] { run(on_overlay.probe()); });
  EXPECT_NE(message.find("put --data-root on ext4"), std::string::npos) << message;
}

TEST_F(RootfsTest, MountsLayersWithTheMountPointsThatEveryContainerNeeds) {
  const std::string base = layer(TarBuilder().directory("etc", 0751).file("etc/hosts", "image's own").finish());
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, base));
  EXPECT_EQ(merged, paths_.rootfs(id_.str()));
  EXPECT_EQ(run(rootfs_->mount(id_, base)), merged) << "a second time is fine";
  EXPECT_EQ(sys::read_file(merged / "etc/hosts"), "image's own");
  for (const char* path : {".dockerenv", "etc/resolv.conf", "etc/hostname", "proc", "sys", "dev/console", "dev/pts"})
    EXPECT_TRUE(is_there(merged / path)) << path;
  EXPECT_EQ(read_link(sys::open_file(merged / "etc", O_RDONLY).get(), "mtab"), "/proc/mounts");
  struct stat st{};
  ASSERT_EQ(::stat((merged / "etc").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0751u) << "the image's looks win";
  EXPECT_EQ(changes(base), std::vector<std::string>{});
  EXPECT_EQ(sys::list_mounts(merged).size(), 1u);
  run(rootfs_->unmount(id_));
  run(rootfs_->unmount(id_));
  EXPECT_FALSE(rootfs_->is_mounted_blocking(id_));
  run(rootfs_->remove(id_));
  run(rootfs_->remove(id_));
  EXPECT_FALSE(is_there(paths_.rootfs(id_.str()).parent_path()));
}

TEST_F(RootfsTest, WhiteoutsAndOpaqueDirectoriesWorkInTheKernel) {
  const std::string base = layer(TarBuilder()
                                     .directory("gone")
                                     .file("gone/x", "1")
                                     .file("file", "1")
                                     .directory("opaque")
                                     .file("opaque/old", "1")
                                     .directory("anew")
                                     .file("anew/old", "1")
                                     .file("kept", "1")
                                     .finish());
  const std::string top = layer(TarBuilder()
                                    .file(".wh.gone")
                                    .file(".wh.file")
                                    .directory("opaque")
                                    .file("opaque/.wh..wh..opq")
                                    .file("opaque/new", "2")
                                    .file(".wh.anew")
                                    .directory("anew")
                                    .file("anew/new", "2")
                                    .finish(),
                                base);
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, top));
  EXPECT_FALSE(is_there(merged / "gone"));
  EXPECT_FALSE(is_there(merged / "file"));
  EXPECT_FALSE(is_there(merged / "opaque/old"));
  EXPECT_FALSE(is_there(merged / "anew/old"));
  EXPECT_TRUE(is_there(merged / "opaque/new"));
  EXPECT_TRUE(is_there(merged / "anew/new"));
  EXPECT_TRUE(is_there(merged / "kept"));
}

TEST_F(RootfsTest, AnOpaqueRootHidesAllLayersBelow) {
  const std::string base = layer(TarBuilder().directory("d").file("d/old", "1").file("old", "1").finish());
  const std::string top = layer(TarBuilder().file(".wh..wh..opq").directory("d").file("d/new", "2").finish(), base);
  EXPECT_TRUE(run(layers_->verify_layer(top)).empty());
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, top));
  EXPECT_FALSE(is_there(merged / "old"));
  EXPECT_FALSE(is_there(merged / "d/old"));
  EXPECT_TRUE(is_there(merged / "d/new"));
}

TEST_F(RootfsTest, Mounts127LayersAndTheInitLayer) {
  std::string chain;
  for (int i = 0; i < 127; ++i) chain = layer(TarBuilder().file("f" + std::to_string(i), "x").finish(), chain);
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, chain));
  for (int i = 0; i < 127; ++i) EXPECT_TRUE(is_there(merged / ("f" + std::to_string(i)))) << i;
  run(rootfs_->unmount(id_));
  sys::OverlaySpec spec;
  spec.lower = layers_->lower_directories(chain);
  ASSERT_EQ(spec.lower.size(), 128u);
  const RootfsInfo info = rootfs_->info(id_, chain);
  spec.upper = info.upper;
  spec.work = info.work;
  spec.classic = true;
  sys::mount_overlay(spec, merged);  // as on kernels before 6.13
  EXPECT_TRUE(is_there(merged / "f0"));
  EXPECT_TRUE(is_there(merged / "f126"));
}

TEST_F(RootfsTest, AnImageWithoutLayersIsARootOfMountPoints) {
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, ""));
  EXPECT_TRUE(is_there(merged / "proc"));
  sys::write_atomically(merged / "new", "x");
  EXPECT_EQ(changes(""), std::vector<std::string>{"A /new"});
}

TEST_F(RootfsTest, ListsChangesAsDockerDiffDoes) {
  const std::string base = layer(TarBuilder()
                                     .directory("etc")
                                     .file("etc/passwd", "root")
                                     .file("etc/group", "root")
                                     .directory("usr")
                                     .directory("usr/lib")
                                     .file("usr/lib/a", "1")
                                     .directory("srv")
                                     .file("srv/old", "1")
                                     .finish());
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, base));
  sys::write_atomically(merged / "etc/passwd", "root and more");
  ASSERT_EQ(::unlink((merged / "etc/group").c_str()), 0);
  sys::write_atomically(merged / "usr/lib/b", "2");
  sys::make_directories(merged / "new/dir");
  sys::remove_tree(merged / "srv");
  sys::make_directories(merged / "srv");
  EXPECT_EQ(changes(base), (std::vector<std::string>{"C /etc", "D /etc/group", "C /etc/passwd", "A /new", "A /new/dir",
                                                     "C /srv", "D /srv/old", "C /usr", "C /usr/lib", "A /usr/lib/b"}));
}

TEST_F(RootfsTest, CommittedChangesGiveTheSameTreeAgain) {
  const std::string base =
      layer(TarBuilder().directory("a").file("a/old", "1").directory("b").file("b/old", "1").file("c", "1").finish());
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, base));
  sys::write_atomically(merged / "a/new", "2");
  sys::remove_tree(merged / "b");
  sys::make_directories(merged / "b");
  sys::write_atomically(merged / "b/new", "2");
  ASSERT_EQ(::unlink((merged / "c").c_str()), 0);
  auto channel = std::make_shared<ByteChannel>(std::size_t{64} << 20);
  run(rootfs_->pack_changes(id_, channel));
  const std::string committed = layer(collect(*channel), base);

  const ContainerId second{std::string(64, 'd')};
  run(rootfs_->create(second));
  const sys::Path again = run(rootfs_->mount(second, committed));
  EXPECT_EQ(test::describe_tree(again), test::describe_tree(merged));
}

TEST_F(RootfsTest, ExportsTheWholeTreeMountedOrNot) {
  const std::string base = layer(TarBuilder().directory("a").file("a/x", "1").file("gone", "1").finish());
  run(rootfs_->create(id_));
  const sys::Path merged = run(rootfs_->mount(id_, base));
  ASSERT_EQ(::unlink((merged / "gone").c_str()), 0);
  sys::write_atomically(merged / "a/y", "2");
  auto mounted = std::make_shared<ByteChannel>(std::size_t{64} << 20);
  run(rootfs_->pack_rootfs(id_, base, mounted));
  run(rootfs_->unmount(id_));
  auto unmounted = std::make_shared<ByteChannel>(std::size_t{64} << 20);
  run(rootfs_->pack_rootfs(id_, base, unmounted));
  const std::string tar = collect(*mounted);
  EXPECT_EQ(collect(*unmounted), tar);
  TemporaryDirectory out;
  test::unpack_bytes(out, tar, UnpackMode::tree);
  EXPECT_EQ(sys::read_file(out / "a/y"), "2");
  EXPECT_TRUE(is_there(out / ".dockerenv"));
  EXPECT_FALSE(is_there(out / "gone"));
}

TEST_F(RootfsTest, RecoverySweepsWhatBelongsToNoContainer) {
  const ContainerId stray{std::string(64, 'e')};
  run(rootfs_->create(id_));
  run(rootfs_->create(stray));
  run(rootfs_->mount(id_, ""));
  run(rootfs_->mount(stray, ""));
  const std::vector<Problem> problems = run(rootfs_->recover({id_.str()}));
  EXPECT_EQ(problems.size(), 2u);
  EXPECT_TRUE(rootfs_->is_mounted_blocking(id_)) << "a running container keeps its mount";
  EXPECT_FALSE(is_there(paths_.container(stray.str())));
  EXPECT_FALSE(is_there(paths_.rootfs(stray.str()).parent_path()));
  EXPECT_TRUE(run(rootfs_->recover({id_.str()})).empty());
}

TEST_F(RootfsTest, ALostLayerIsNamed) {
  EXPECT_NE(test::error_of([&] { run(rootfs_->mount(id_, "sha256:" + std::string(64, '0'))); }).find("is not stored"),
            std::string::npos);
}

TEST_F(RootfsTest, AHeldTreeStaysMountedWhateverTheContainerDoes) {
  const std::string chain = layer(TarBuilder().file("a", "x").finish());
  run(rootfs_->create(id_));
  const sys::Path place = run(rootfs_->hold(id_, chain));
  EXPECT_TRUE(sys::is_mount_point(place));
  run(rootfs_->hold(id_, chain));
  run(rootfs_->mount(id_, chain));  // it is started …
  run(rootfs_->unmount(id_));       // … and ends
  EXPECT_TRUE(sys::is_mount_point(place));
  run(rootfs_->release(id_));
  EXPECT_TRUE(sys::is_mount_point(place));
  run(rootfs_->release(id_));
  EXPECT_FALSE(sys::is_mount_point(place));
  run(rootfs_->remove(id_));
}

TEST_F(RootfsTest, GivingAHoldBackLeavesTheTreeToWhoMountedIt) {
  const std::string chain = layer(TarBuilder().file("a", "x").finish());
  run(rootfs_->create(id_));
  run(rootfs_->hold(id_, chain));
  const sys::Path place = run(rootfs_->mount(id_, chain));
  run(rootfs_->release(id_));
  EXPECT_TRUE(sys::is_mount_point(place));
  run(rootfs_->hold(id_, chain));
  run(rootfs_->release(id_));
  EXPECT_TRUE(sys::is_mount_point(place));
  run(rootfs_->unmount(id_));
  EXPECT_FALSE(sys::is_mount_point(place));
  run(rootfs_->remove(id_));
}

}  // namespace
}  // namespace gantry::storage
