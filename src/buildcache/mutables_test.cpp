#include "buildcache/mutables.hpp"

#include <future>
#include <thread>

#include "buildcache/test_support.hpp"

namespace gantry::buildcache {
namespace {

class MutablesTest : public test::CacheTest {
 protected:
  std::unique_ptr<Mutable> get(const std::string& key, Sharing sharing, RecordType type = RecordType::exec_cachemount) {
    return cache_->mutables().acquire({.key = key, .type = type, .description = "d", .sharing = sharing}, {});
  }
  std::unique_ptr<Mutable> local() { return get("local", Sharing::private_copy, RecordType::source_local); }
};

TEST_F(MutablesTest, SharedIsTheSameDirectoryAndOutlivesItsUsers) {
  sys::Path path;
  {
    const auto one = get("k", Sharing::shared);
    const auto two = get("k", Sharing::shared);
    EXPECT_EQ(one->path(), two->path());
    EXPECT_NE(get("other", Sharing::shared)->path(), one->path());
    write(one->path() / "f", "kept");
    path = one->path();
  }
  reopen();
  EXPECT_EQ(get("k", Sharing::shared)->path(), path);
  EXPECT_EQ(sys::read_file(path / "f"), "kept");
}

TEST_F(MutablesTest, PrivateIsADirectoryOfOnesOwn) {
  auto one = get("k", Sharing::private_copy);
  const auto two = get("k", Sharing::private_copy);
  EXPECT_NE(one->path(), two->path());
  const sys::Path free = one->path();
  one.reset();
  EXPECT_EQ(get("k", Sharing::private_copy)->path(), free);
}

TEST_F(MutablesTest, LockedIsUsedOneAfterTheOther) {
  auto one = get("k", Sharing::locked);
  const sys::Path path = one->path();
  auto next = std::async(std::launch::async, [&] { return get("k", Sharing::locked)->path(); });
  std::stop_source stop;
  auto stopped = std::async(std::launch::async, [&] {
    return test::error_of(
        [&] { cache_->mutables().acquire({.key = "k", .sharing = Sharing::locked}, stop.get_token()); });
  });
  stop.request_stop();
  EXPECT_EQ(stopped.get(), "context canceled");
  EXPECT_EQ(next.wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
  one.reset();
  EXPECT_EQ(next.get(), path);
}

TEST_F(MutablesTest, AManyUsersOfANewKeyGetOneDirectory) {
  std::vector<std::future<std::unique_ptr<Mutable>>> all;
  for (int i = 0; i < 16; ++i) all.push_back(std::async(std::launch::async, [&] { return get("k", Sharing::shared); }));
  std::set<sys::Path> paths;
  std::vector<std::unique_ptr<Mutable>> held;
  for (auto& one : all) held.push_back(one.get());
  for (const auto& one : held) paths.insert(one->path());
  EXPECT_EQ(paths.size(), 1U);
}

TEST_F(MutablesTest, ANewDirectoryStartsWithTheInitialTree) {
  const SnapshotPtr initial = make(make(nullptr, "a", "1"), "d/b", "2");
  const auto directory = cache_->mutables().acquire({.key = "k", .initial = initial}, {});
  EXPECT_EQ(sys::read_file(directory->path() / "a"), "1");
  EXPECT_EQ(sys::read_file(directory->path() / "d/b"), "2");
  write(directory->path() / "a", "changed");
  EXPECT_EQ(read(initial, "a"), "1");
  EXPECT_EQ(cache_->mutables().acquire({.key = "k", .initial = initial}, {})->path(), directory->path());
  EXPECT_NE(cache_->mutables().acquire({.key = "k"}, {})->path(), directory->path());
}

TEST_F(MutablesTest, AFrozenDirectoryIsATreeThatNobodyElseGets) {
  auto directory = local();
  const sys::Path path = directory->path();
  write(path / "f", "context");
  directory->mark_changed();
  SnapshotPtr tree = directory->freeze();
  directory.reset();
  EXPECT_EQ(read(tree, "f"), "context");
  EXPECT_NE(local()->path(), path);
  SnapshotPtr copy = make(nullptr, "x");
  tree.reset();
  EXPECT_EQ(local()->path(), path);
  for (const UsageRecord& record : cache_->usage({"type==source.local"})) {
    EXPECT_TRUE(record.is_mutable);
    EXPECT_GE(record.uses, 1);
  }
}

TEST_F(MutablesTest, DigestsOfADirectoryHoldUntilItIsChanged) {
  auto directory = local();
  directory->mark_changed();
  SnapshotPtr tree = directory->freeze();
  directory.reset();
  cache_->index().store_digest(tree, "all", "digest");
  EXPECT_FALSE(cache_->index().notes_file(tree).empty());
  tree.reset();

  directory = local();
  tree = directory->freeze();  // nothing was written
  directory.reset();
  EXPECT_EQ(cache_->index().find_digest(tree, "all"), "digest");
  tree.reset();
  reopen();

  directory = local();
  directory->mark_changed();
  tree = directory->freeze();
  directory.reset();
  EXPECT_FALSE(cache_->index().find_digest(tree, "all"));
  cache_->index().store_digest(tree, "all", "digest");
  tree.reset();

  local();  // a transfer that failed half way
  directory = local();
  EXPECT_FALSE(cache_->index().find_digest(directory->freeze(), "all"));
}

TEST_F(MutablesTest, WhatIsMadeOnADirectoryKeepsIt) {
  auto directory = local();
  const sys::Path path = directory->path();
  write(path / "f", "kept");
  SnapshotPtr tree = directory->freeze();
  directory.reset();
  const SnapshotPtr upper = make(tree, "g");
  cache_->index().store("key", upper);
  tree.reset();
  EXPECT_NE(local()->path(), path) << "it is no context any more";
  EXPECT_EQ(read(upper, "f"), "kept");
}

TEST_F(MutablesTest, RefusesKeysWithoutBounds) {
  EXPECT_EQ(test::error_of([&] { get("", Sharing::shared); }), "a cache id has 1 to 4096 bytes");
  EXPECT_EQ(test::error_of([&] { get(std::string(5000, 'x'), Sharing::shared); }), "a cache id has 1 to 4096 bytes");
}

}  // namespace
}  // namespace gantry::buildcache
