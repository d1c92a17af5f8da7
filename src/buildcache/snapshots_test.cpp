#include "buildcache/snapshots.hpp"

#include <thread>

#include "buildcache/test_support.hpp"

namespace gantry::buildcache {
namespace {

const auto* const kPrivate = testing::AddGlobalTestEnvironment(new test::PrivateMounts);

class SnapshotsTest : public test::CacheTest {};

TEST_F(SnapshotsTest, LayersMakeATree) {
  const SnapshotPtr lower = make(nullptr, "a", "one");
  auto workspace = cache_->snapshots().create(lower, RecordType::regular, "more");
  const sys::Path root = workspace->mount();
  EXPECT_EQ(sys::read_file(root / "a"), "one");
  write(root / "b", "two");
  ASSERT_EQ(::unlink((root / "a").c_str()), 0);
  const SnapshotPtr upper = workspace->commit();
  workspace.reset();

  EXPECT_EQ(upper->depth(), 2U);
  EXPECT_EQ(upper->parent(), lower);
  EXPECT_EQ(read(upper, "a"), "(none)");
  EXPECT_EQ(read(upper, "b"), "two");
  EXPECT_EQ(read(lower, "a"), "one");
  EXPECT_EQ(upper->size(), 3);
  EXPECT_EQ(mounts(), 0U);
}

TEST_F(SnapshotsTest, AWorkspaceThatIsNotCommittedLeavesNothing) {
  {
    auto workspace = cache_->snapshots().create(nullptr, RecordType::regular, "half");
    write(workspace->mount() / "f", "x");
    EXPECT_EQ(mounts(), 1U);
  }
  EXPECT_EQ(mounts(), 0U);
  EXPECT_EQ(trees(), 0U);
  EXPECT_TRUE(cache_->usage().empty());
}

TEST_F(SnapshotsTest, TheRootKeepsItsLooks) {
  auto workspace = cache_->snapshots().create(nullptr, RecordType::regular, "base");
  const sys::Path root = workspace->mount();
  ASSERT_EQ(::chmod(root.c_str(), 01711), 0);
  ASSERT_EQ(::chown(root.c_str(), 7, 8), 0);
  const SnapshotPtr lower = workspace->commit();
  const SnapshotPtr upper = make(lower, "f");
  const auto view = cache_->snapshots().view(upper);
  struct stat st{};
  ASSERT_EQ(::stat(view->path().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 01711U);
  EXPECT_EQ(st.st_uid, 7U);
  EXPECT_EQ(st.st_gid, 8U);
}

TEST_F(SnapshotsTest, AViewIsReadOnlyAndSharedAndHidesWhiteouts) {
  auto workspace = cache_->snapshots().create(nullptr, RecordType::regular, "odd");
  ASSERT_EQ(::mknod((workspace->upper() / "gone").c_str(), S_IFCHR, 0), 0);
  const SnapshotPtr odd = workspace->commit();
  const auto one = cache_->snapshots().view(odd);
  const auto two = cache_->snapshots().view(odd);
  EXPECT_EQ(one->path(), two->path());
  EXPECT_TRUE(sys::list_directory(one->path()).empty());
  EXPECT_EQ(::mkdir((one->path() / "d").c_str(), 0755), -1);
  EXPECT_TRUE(sys::list_directory(cache_->snapshots().view(nullptr)->path()).empty());
}

TEST_F(SnapshotsTest, ATreeIsFoundByItsKeyByTheNextWorker) {
  const SnapshotPtr lower = make(nullptr, "a");
  EXPECT_FALSE(cache_->index().find("key"));
  {
    const SnapshotPtr upper = make(lower, "c", "text");
    cache_->index().store("key", upper);
    cache_->index().store("nothing", nullptr);
  }
  const Timestamp created = (*cache_->index().find("key"))->created();
  reopen();
  const auto found = cache_->index().find("key");
  ASSERT_TRUE(found && *found);
  EXPECT_EQ(read(*found, "c"), "text");
  EXPECT_EQ(read(*found, "a"), "text");
  EXPECT_EQ((*found)->created(), created);
  EXPECT_EQ((*found)->depth(), 2U);
  ASSERT_TRUE(cache_->index().find("nothing"));
  EXPECT_EQ(*cache_->index().find("nothing"), nullptr);
  EXPECT_EQ(cache_->index().find("key"), found) << "one object for one tree";
}

TEST_F(SnapshotsTest, AnImagesLayersAreLeasedWhileAnythingStandsOnThem) {
  write(root_ / "layers/one/f", "1");
  write(root_ / "layers/two/g", "2");
  std::weak_ptr<int> lease;
  SnapshotPtr upper;
  {
    auto held = std::make_shared<int>(1);
    lease = held;
    const SnapshotPtr image =
        cache_->snapshots().adopt_image({{"sha256:" + std::string(64, 'a'), "sha256:1", root_ / "layers/one", 1, {}},
                                         {"sha256:" + std::string(64, 'b'), "sha256:2", root_ / "layers/two", 1, {}}},
                                        std::move(held));
    EXPECT_TRUE(image->is_image_layer());
    EXPECT_EQ(image->id(), "layer-" + std::string(64, 'b'));
    upper = make(image, "h", "3");
    cache_->index().store("key", upper);
  }
  EXPECT_FALSE(lease.expired());
  EXPECT_EQ(read(upper, "f"), "1");
  upper.reset();
  EXPECT_TRUE(lease.expired());
  EXPECT_EQ(cache_->usage().size(), 1U) << "an image's layers are no records";

  bool there = false;
  hooks_.hold = [&](const std::string& chain) -> std::shared_ptr<void> {
    EXPECT_EQ(chain, "sha256:" + std::string(64, 'b'));
    return there ? std::make_shared<int>(2) : nullptr;
  };
  reopen();
  EXPECT_FALSE(cache_->index().find("key")) << "the image is gone";
  there = true;
  const auto found = cache_->index().find("key");
  ASSERT_TRUE(found);
  EXPECT_EQ(read(*found, "g"), "2");
}

TEST_F(SnapshotsTest, ALayerThatTheDaemonTookIsUsedWhereItIs) {
  const SnapshotPtr snapshot = make(nullptr, "f", "mine");
  const SnapshotPtr upper = make(snapshot, "g", "other");
  cache_->index().store("key", upper);
  const sys::Path place = root_ / "daemon/diff";
  sys::make_directories(place.parent_path());
  {
    auto move = cache_->snapshots().begin_move(snapshot);
    ASSERT_EQ(::rename(snapshot->directory().c_str(), place.c_str()), 0);
    std::string seen;
    std::thread other([&] { seen = read(upper, "f"); });  // waits
    cache_->snapshots().became_layer(snapshot, "sha256:c", "sha256:d", place, 4);
    move.reset();
    other.join();
    EXPECT_EQ(seen, "mine");
  }
  EXPECT_EQ(snapshot->chain_id(), "sha256:c");
  EXPECT_EQ(snapshot->directory(), place);
  EXPECT_EQ(cache_->daemon_layers(), std::set<std::string>{"sha256:c"});
  reopen();
  EXPECT_EQ(read(*cache_->index().find("key"), "f"), "mine");
}

TEST_F(SnapshotsTest, ALayerThatTheDaemonHadAlreadyReplacesOursWhenItsLastUserIsGone) {
  write(root_ / "daemon/diff/f", "mine");
  const SnapshotPtr snapshot = make(nullptr, "f", "mine");
  const sys::Path ours = snapshot->directory();
  auto view = cache_->snapshots().view(snapshot);
  cache_->snapshots().became_layer(snapshot, "sha256:c", "sha256:d", root_ / "daemon/diff", 4);
  EXPECT_EQ(sys::read_file(view->path() / "f"), "mine");
  EXPECT_EQ(::access(ours.c_str(), F_OK), 0);
  view.reset();
  EXPECT_NE(::access(ours.c_str(), F_OK), 0);
  EXPECT_EQ(read(snapshot, "f"), "mine");
}

TEST_F(SnapshotsTest, ThereIsABoundOnLayers) {
  SnapshotPtr top;
  for (int i = 0; i < 400; ++i) top = cache_->snapshots().create(top, RecordType::regular, "layer")->commit();
  EXPECT_TRUE(sys::list_directory(cache_->snapshots().view(top)->path()).empty());
  EXPECT_EQ(test::error_of([&] { cache_->snapshots().create(top, RecordType::regular, "one too many"); }),
            "max depth exceeded: a tree has at most 400 layers");
}

}  // namespace
}  // namespace gantry::buildcache
