#include "buildcache/prune.hpp"

#include "buildcache/test_support.hpp"

namespace gantry::buildcache {
namespace {

TEST(UsageFilter, HasContainerdsLanguage) {
  UsageRecord record;
  record.id = "abc";
  record.type = RecordType::source_local;
  record.description = "local source for context";
  record.is_mutable = true;
  const auto matches = [&](const std::string& expression) { return UsageFilter({expression}).matches(record); };
  EXPECT_TRUE(UsageFilter().matches(record));
  EXPECT_TRUE(matches(""));
  EXPECT_TRUE(matches("id==abc"));
  EXPECT_TRUE(matches("id~=^a"));
  EXPECT_FALSE(matches("id~=^b"));
  EXPECT_FALSE(matches("id!=abc"));
  EXPECT_TRUE(matches("type==source.local,mutable,private"));
  EXPECT_FALSE(matches("type==source.local,inuse"));
  EXPECT_FALSE(matches("parents"));
  EXPECT_FALSE(matches("shared"));
  EXPECT_FALSE(matches("immutable"));
  EXPECT_FALSE(matches("nosuchfield==x"));
  EXPECT_TRUE(matches("description==\"local source for context\""));
  EXPECT_TRUE(matches("description~=/source.for/"));
  EXPECT_TRUE(UsageFilter({"id==x", "id==abc"}).matches(record));
  EXPECT_TRUE(matches("type==exec.cachemount,type==source.local,id==abc")) << "as Docker's own policy means it";
  EXPECT_FALSE(matches("type==exec.cachemount,type==regular"));
}

TEST(UsageFilter, RefusesWhatIsNoExpression) {
  for (const char* bad : {"==x", "id==", "id==\"open", "id~=[", "id==a b,", ",", "id ", "id=x"})
    EXPECT_THROW(UsageFilter({bad}), Error) << bad;
  EXPECT_THROW(UsageFilter(std::vector<std::string>(65, "id==x")), Error);
}

TEST(GcPolicies, AreDockersUnlessGiven) {
  const auto policies = gc_policies({}, 1'000'000'000'000);
  ASSERT_EQ(policies.size(), 4U);
  EXPECT_EQ(policies[0].keep_duration, std::chrono::hours(48));
  EXPECT_EQ(policies[0].max_used_space, 10'000'000'000);
  EXPECT_EQ(policies[1].keep_duration, std::chrono::hours(1440));
  EXPECT_EQ(policies[2].reserved_space, 100'000'000'000);
  EXPECT_EQ(policies[2].max_used_space, 800'000'000'000);
  EXPECT_EQ(policies[2].min_free_space, 200'000'000'000);
  EXPECT_TRUE(policies[3].all);
  EXPECT_TRUE(gc_policies({.enabled = false}, 1).empty());
  EXPECT_EQ(gc_policies({.reserved_space = 5}, 1000)[2].reserved_space, 5);
  EXPECT_EQ(gc_policies({.policies = {{.all = true}}}, 1000).size(), 1U);
}

class PruneTest : public test::CacheTest {
 protected:
  std::vector<std::string> prune(const PruneOptions& options) {
    std::vector<std::string> gone;
    cache_->prune(options, [&](const UsageRecord& record) { gone.push_back(record.description); }, {});
    return gone;
  }
  using Names = std::vector<std::string>;
};

TEST_F(PruneTest, RemovesUsersBeforeWhatTheyUseAndNothingThatIsInUse) {
  SnapshotPtr a = make(nullptr, "a");
  SnapshotPtr b = make(a, "b");
  SnapshotPtr other = make(nullptr, "other");
  cache_->index().store("b", b);
  a.reset();
  EXPECT_EQ(prune({}), Names{});
  for (const UsageRecord& record : cache_->usage()) EXPECT_TRUE(record.in_use) << record.description;
  b.reset();
  EXPECT_EQ(prune({}), (Names{"made b", "made a"}));
  EXPECT_FALSE(cache_->index().find("b"));
  EXPECT_EQ(trees(), 1U);
}

TEST_F(PruneTest, GoesByFilters) {
  make(nullptr, "a");
  cache_->mutables().acquire({.key = "k", .description = "cached mount"}, {});
  EXPECT_EQ(prune({.filters = {"type==exec.cachemount"}}), Names{"cached mount"});
  EXPECT_EQ(prune({.filters = {"description~=b"}}), Names{});
  EXPECT_EQ(prune({.filters = {"description~=made"}}), Names{"made a"});
}

TEST_F(PruneTest, LeavesInternalAndSharedRecordsUnlessAllIsAsked) {
  hooks_.used_by_images = [](const std::vector<std::string>& chains) {
    return std::set<std::string>(chains.begin(), chains.end());
  };
  std::vector<std::string> released;
  hooks_.release = [&](const std::string& chain) { released.push_back(chain); };
  reopen();
  make(nullptr, "internal", "text", RecordType::internal);
  write(root_ / "daemon/f", "x");
  cache_->snapshots().became_layer(make(nullptr, "shared"), "sha256:c", "sha256:d", root_ / "daemon", 1);
  EXPECT_EQ(cache_->usage({"shared"}).size(), 1U);
  EXPECT_EQ(prune({}), Names{});
  EXPECT_EQ(prune({.all = true}).size(), 2U);
  EXPECT_EQ(released, Names{"sha256:c"});
  EXPECT_EQ(sys::read_file(root_ / "daemon/f"), "x") << "that is the daemon's";
}

TEST_F(PruneTest, KeepsTheLastUsedWithinASize) {
  for (const char* name : {"a", "b", "c", "d"})
    cache_->index().store(name, make(nullptr, name, std::string(1000, 'x')));
  ASSERT_TRUE(cache_->index().find("a"));
  EXPECT_EQ(prune({.max_used_space = 4000}), Names{});
  EXPECT_EQ(prune({.max_used_space = 2500}), (Names{"made b", "made c"}));
  EXPECT_EQ(prune({.reserved_space = 2000, .max_used_space = 1}), Names{});
  EXPECT_EQ(prune({.reserved_space = 1000}), Names{"made d"});
  EXPECT_TRUE(cache_->index().find("a"));
}

TEST_F(PruneTest, FreesTheDiskButNotWhatIsReserved) {
  make(nullptr, "a", std::string(1000, 'x'));
  EXPECT_EQ(prune({.min_free_space = 1}), Names{});
  EXPECT_EQ(prune({.reserved_space = 1000, .min_free_space = INT64_MAX / 2}), Names{});
  EXPECT_EQ(prune({.min_free_space = INT64_MAX / 2}), Names{"made a"});
}

TEST_F(PruneTest, KeepsWhatWasUsedLately) {
  make(nullptr, "a");
  EXPECT_EQ(prune({.keep_duration = std::chrono::hours(1)}), Names{});
  EXPECT_EQ(prune({.keep_duration = std::chrono::nanoseconds(1)}), Names{"made a"});
}

TEST_F(PruneTest, CollectsWhenAsked) {
  hooks_.release = nullptr;
  make(nullptr, "a", std::string(5000, 'x'));
  cache_->set_gc({{.max_used_space = 1}});
  cache_->collect_soon();
  for (int i = 0; i < 5000 && !cache_->usage().empty(); ++i) ::usleep(2000);
  EXPECT_TRUE(cache_->usage().empty());
}

TEST_F(PruneTest, CanBeStopped) {
  make(nullptr, "a");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(test::error_of([&] { cache_->prune({}, [](const UsageRecord&) {}, stop.get_token()); }),
            "context canceled");
  EXPECT_EQ(cache_->usage().size(), 1U);
}

TEST_F(PruneTest, SizesOfDirectoriesAreCountedWhenAsked) {
  {
    const auto directory = cache_->mutables().acquire({.key = "k"}, {});
    write(directory->path() / "f", "12345");
  }
  EXPECT_EQ(cache_->usage()[0].size, 5);
  {
    const auto directory = cache_->mutables().acquire({.key = "k"}, {});
    write(directory->path() / "g", "12345");
  }
  EXPECT_EQ(cache_->usage()[0].size, 10);
}

}  // namespace
}  // namespace gantry::buildcache
