#include "engine/container_filter.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "engine/test_world.hpp"

namespace gantry::engine {
namespace {

using Names = std::vector<std::string>;
using FilterMap = std::map<std::string, std::set<std::string>>;

class ContainerFilterTest : public testing::Test {
 protected:
  ContainerFilterTest() {
    old_ = world_.add('a', "old", 100);
    middle_ = world_.add('b', "middle", 200);
    young_ = world_.add('c', "young", 300);
    old_->state.started = Timestamp(std::chrono::seconds(110));
    old_->state.exit_code = 3;
    young_->state.running = true;
    young_->state.started = Timestamp(std::chrono::seconds(310));
  }
  Names select(FilterMap filters, bool all = true, std::int64_t limit = 0) {
    ListQuery query;
    query.all = all;
    query.limit = limit;
    query.filters = Filters(std::move(filters));
    NetworkView networks(world_.networks);
    Names names;
    for (const ContainerPtr& container : select_containers(query, world_.store, world_.images, networks))
      names.push_back(container->name);
    return names;
  }
  std::string refusal(FilterMap filters) {
    try {
      (void)select(std::move(filters));
      return "accepted";
    } catch (const Error& e) {
      return e.message();
    }
  }

  TestWorld world_;
  ContainerPtr old_, middle_, young_;
};

TEST_F(ContainerFilterTest, ListsWhatRunsUnlessAskedForAll) {
  EXPECT_EQ(select({}, false), Names{"young"});
  EXPECT_EQ(select({}), (Names{"young", "middle", "old"}));
}

TEST_F(ContainerFilterTest, ALimitMeansTheNewestWhateverTheyDo) {
  EXPECT_EQ(select({}, false, 2), (Names{"young", "middle"}));
}

TEST_F(ContainerFilterTest, AStatusImpliesAll) {
  EXPECT_EQ(select({{"status", {"exited"}}}, false), Names{"old"});
  EXPECT_EQ(select({{"status", {"created", "running"}}}, false), (Names{"young", "middle"}));
  EXPECT_EQ(refusal({{"status", {"asleep"}}}), "invalid filter 'status=asleep'");
}

TEST_F(ContainerFilterTest, NamesAreExpressionsWithAndWithoutTheSlash) {
  EXPECT_EQ(select({{"name", {"^/mid"}}}), Names{"middle"});
  EXPECT_EQ(select({{"name", {"^old$"}}}), Names{"old"});
  EXPECT_EQ(select({{"name", {"d"}}}), (Names{"middle", "old"}));
  EXPECT_EQ(select({{"name", {"*"}}}), Names{});
}

TEST_F(ContainerFilterTest, ComparesWithOtherContainers) {
  EXPECT_EQ(select({{"before", {"middle"}}}), Names{"old"});
  EXPECT_EQ(select({{"since", {"middle"}}}), Names{"young"});
  EXPECT_EQ(refusal({{"since", {"nobody"}}}), "No such container: nobody");
}

TEST_F(ContainerFilterTest, ExitCodesAreOfContainersThatHaveRun) {
  EXPECT_EQ(select({{"exited", {"3"}}}), Names{"old"});
  EXPECT_EQ(select({{"exited", {"0"}}}), Names{});
  EXPECT_TRUE(refusal({{"exited", {"a"}}}).starts_with("invalid filter 'exited=a'"));
}

TEST_F(ContainerFilterTest, LabelsMustAllMatch) {
  old_->config.Labels = model::StringMap{{"a", "1"}, {"b", "2"}};
  young_->config.Labels = model::StringMap{{"a", "1"}};
  EXPECT_EQ(select({{"label", {"a=1"}}}), (Names{"young", "old"}));
  EXPECT_EQ(select({{"label", {"a", "b=2"}}}), Names{"old"});
}

TEST_F(ContainerFilterTest, PortsMayBeRanges) {
  old_->config.ExposedPorts = model::StringSet{{"85/tcp", {}}};
  old_->host.PortBindings.emplace();
  (*old_->host.PortBindings)["85/tcp"].emplace();
  EXPECT_EQ(select({{"expose", {"80-90"}}}), Names{"old"});
  EXPECT_EQ(select({{"publish", {"85"}}}), Names{"old"});
  EXPECT_EQ(select({{"publish", {"85/udp"}}}), Names{});
  EXPECT_EQ(refusal({{"publish", {"90-80"}}}), "invalid filter 'publish=90-80'");
}

TEST_F(ContainerFilterTest, VolumesGoByNameOrDestination) {
  volume::MountPoint mount;
  mount.name = "data";
  mount.destination = "/data";
  old_->mounts.push_back(mount);
  EXPECT_EQ(select({{"volume", {"data"}}}), Names{"old"});
  EXPECT_EQ(select({{"volume", {"/data"}}}), Names{"old"});
}

TEST_F(ContainerFilterTest, NetworksGoByName) {
  old_->host.NetworkMode = "front";
  old_->networks["back"] = {};
  EXPECT_EQ(select({{"network", {"front"}}}), Names{"old"});
  EXPECT_EQ(select({{"network", {"back"}}}), Names{"old"});
  EXPECT_EQ(select({{"network", {"bridge"}}}), (Names{"young", "middle"}));
}

TEST_F(ContainerFilterTest, IdsAreBeginnings) { EXPECT_EQ(select({{"id", {"bb"}}}), Names{"middle"}); }

TEST_F(ContainerFilterTest, AnUnknownAncestorMatchesNothing) {
  EXPECT_EQ(select({{"ancestor", {"nothing:here"}}}), Names{});
}

TEST_F(ContainerFilterTest, RefusesUnknownKeys) {
  EXPECT_EQ(refusal({{"colour", {"red"}}}), "invalid filter 'colour'");
  EXPECT_EQ(refusal({{"health", {"fine"}}}), "invalid filter 'health=fine'");
}

TEST_F(ContainerFilterTest, PrunesByAgeAndLabels) {
  old_->config.Labels = model::StringMap{{"keep", ""}};
  const auto aged = prune_filter(Filters(FilterMap{{"until", {"250"}}}));
  EXPECT_TRUE(aged(*old_));
  EXPECT_FALSE(aged(*young_));
  const auto unkept = prune_filter(Filters(FilterMap{{"label!", {"keep"}}}));
  EXPECT_FALSE(unkept(*old_));
  EXPECT_TRUE(unkept(*middle_));
  EXPECT_THROW(prune_filter(Filters(FilterMap{{"name", {"x"}}})), Error);
}

}  // namespace
}  // namespace gantry::engine
