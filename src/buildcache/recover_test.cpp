#include <cerrno>
#include <functional>

#include <sys/wait.h>

#include "base/failpoint.hpp"
#include "buildcache/schema.hpp"
#include "buildcache/test_support.hpp"
#include "db/sqlite.hpp"

namespace gantry::buildcache {
namespace {

class RecoverTest : public test::CacheTest {
 protected:
  /// Does something in another process that a failpoint kills, as a worker is killed.
  void kill_at(const std::string& failpoint, const std::function<void()>& body) {
    cache_.reset();
    const pid_t child = ::fork();
    if (child == 0) {
      arm_failpoints(failpoint + "=kill");
      reopen();
      body();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << failpoint << " was not passed";
    reopen();
  }
  void wait_until_collected() {
    for (int i = 0; i < 15'000 && trees() != cache_->usage().size(); ++i) {
      cache_->collect_soon();
      ::usleep(2000);
    }
  }
};

TEST_F(RecoverTest, AKilledStepLeavesNothing) {
  for (const char* at : {"buildcache.create.after_row", "buildcache.commit.after_unmount"}) {
    kill_at(at, [&] { make(nullptr, "f"); });
    EXPECT_TRUE(cache_->usage().empty()) << at;
    wait_until_collected();
    EXPECT_EQ(trees(), 0U) << at;
    EXPECT_TRUE(cache_->check(false).empty()) << at;
  }
}

TEST_F(RecoverTest, AKilledRemovalIsFinished) {
  for (const char* at : {"buildcache.remove.after_row", "buildcache.remove.after_tree"}) {
    cache_->index().store("key", make(nullptr, "f"));
    kill_at(at, [&] { cache_->prune({}, [](const UsageRecord&) {}, {}); });
    EXPECT_TRUE(cache_->usage().empty()) << at;
    EXPECT_FALSE(cache_->index().find("key")) << at;
    wait_until_collected();
    EXPECT_EQ(trees(), 0U) << at;
  }
}

TEST_F(RecoverTest, AKilledCommitEitherIsOrIsNot) {
  kill_at("buildcache.commit.after_row", [&] { make(nullptr, "f"); });
  EXPECT_EQ(cache_->usage().size(), 1U);
  EXPECT_EQ(trees(), 1U);
  EXPECT_TRUE(cache_->check(false).empty());
}

TEST_F(RecoverTest, AKilledMutableIsMadeAgain) {
  kill_at("buildcache.mutable.after_row", [&] { cache_->mutables().acquire({.key = "k"}, {}); });
  EXPECT_TRUE(cache_->usage().empty());
  EXPECT_EQ(cache_->mutables().acquire({.key = "k"}, {})->path().filename(), "diff");
}

TEST_F(RecoverTest, AfterACrashOfTheMachineOnlyWhatWasSettledCounts) {
  const SnapshotPtr settled = make(nullptr, "a");
  cache_->index().store("settled", settled);
  cache_->settle();
  cache_->index().store("lost", make(settled, "b"));
  cache_.reset();  // this settles; a crash does not
  {
    db::Db database(root_ / "cache/cache.db", cache_schema());
    database.execute("UPDATE facts SET value = 'another' WHERE name = 'boot'");
    database.execute("UPDATE records SET settled = 0 WHERE description = 'made b'");
  }
  reopen();
  EXPECT_TRUE(cache_->index().find("settled"));
  EXPECT_FALSE(cache_->index().find("lost"));
  EXPECT_EQ(cache_->usage().size(), 1U);
}

TEST_F(RecoverTest, ADamagedDatabaseIsPutAsideAndTheCacheIsEmpty) {
  make(nullptr, "f");
  cache_.reset();
  ASSERT_EQ(::unlink((root_ / "cache/cache.db-wal").c_str()) == 0 || errno == ENOENT, true);
  sys::write_atomically(root_ / "cache/cache.db", std::string(8192, 'x'), 0600, false);
  reopen();
  EXPECT_TRUE(cache_->usage().empty());
  wait_until_collected();
  EXPECT_EQ(trees(), 0U);
  bool aside = false;
  for (const std::string& name : sys::list_directory(root_ / "cache")) aside |= name.find("damaged") != name.npos;
  EXPECT_TRUE(aside);
}

TEST_F(RecoverTest, TheCheckFindsWhatIsLostAndRepairsIt) {
  const sys::Path lost = make(nullptr, "f")->directory();
  make(nullptr, "g");
  sys::remove_tree(lost);
  sys::make_directories(root_ / "cache/trees/nobodys/diff");
  EXPECT_EQ(cache_->check(true).size(), 2U);
  wait_until_collected();
  EXPECT_TRUE(cache_->check(false).empty());
  EXPECT_EQ(cache_->usage().size(), 1U);
}

}  // namespace
}  // namespace gantry::buildcache
