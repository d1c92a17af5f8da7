#include "sys/cgroup.hpp"

#include <gtest/gtest.h>

#include <csignal>

#include <poll.h>
#include <sys/wait.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "sys/capability.hpp"
#include "sys/process.hpp"

namespace gantry::sys {
namespace {

class CgroupTest : public testing::Test {
 protected:
  void TearDown() override { remove_cgroup(layout_, parent_); }

  /// A process that sleeps in the group, in every hierarchy.
  Child start_in(const std::string& group) {
    SpawnOptions options;
    options.argv = {"/bin/busybox", "sleep", "60"};
    Child child = spawn(options);
    for (const auto& [controller, mount] : layout_.controllers)
      write_existing(mount / Path(group).relative_path() / "cgroup.procs", std::to_string(child.pid));
    if (!layout_.unified.empty())
      write_existing(layout_.unified / Path(group).relative_path() / "cgroup.procs", std::to_string(child.pid));
    return child;
  }

  const CgroupLayout layout_ = probe_cgroups();
  const std::string parent_ = "/gantry-cgroup-test-" + random_id().substr(0, 8);
};

TEST_F(CgroupTest, HierarchiesAreFound) {
  EXPECT_NE(layout_.mode, CgroupMode::none);
  EXPECT_TRUE(layout_.has("memory"));
  EXPECT_TRUE(layout_.has("pids"));
  EXPECT_FALSE(layout_.has("nonesuch"));
  ASSERT_TRUE(layout_.directory("memory", "/a/b").has_value());
  EXPECT_TRUE(layout_.directory("memory", "/a/b")->native().ends_with("/a/b"));
}

TEST_F(CgroupTest, ProcessesAreListedKilledAndTheGroupRemoved) {
  const std::string group = parent_ + "/one";
  create_cgroup(layout_, group);
  // An empty cpuset of version 1 takes no process.
  if (layout_.controllers.contains("cpuset"))
    for (const std::string& directory : {parent_, group})
      for (const char* file : {"cpuset.cpus", "cpuset.mems"})
        write_existing(*layout_.directory("cpuset", directory) / file, "0");
  Child child = start_in(group);
  EXPECT_EQ(list_cgroup_pids(layout_, group), std::vector<pid_t>{child.pid});
  EXPECT_EQ(list_cgroup_pids(layout_, parent_), std::vector<pid_t>{child.pid});
  EXPECT_EQ(list_child_cgroups(layout_, parent_), std::vector<std::string>{"one"});
  const CgroupStats stats = read_cgroup_stats(layout_, group);
  EXPECT_EQ(stats.pids_current, 1u);
  EXPECT_EQ(stats.pids_limit, 0u);
  EXPECT_EQ(stats.memory_limit, 0u);
  EXPECT_FALSE(stats.memory_stat.empty());
  EXPECT_EQ(count_oom_kills(layout_, group), 0u);
  EXPECT_FALSE(remove_cgroup(layout_, parent_));
  kill_cgroup(layout_, group);
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid, &status, 0), child.pid);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_TRUE(remove_cgroup(layout_, parent_));
  EXPECT_TRUE(remove_cgroup(layout_, parent_));
  EXPECT_TRUE(list_cgroup_pids(layout_, group).empty());
  EXPECT_THROW((void)read_cgroup_stats(layout_, group), Error);
}

TEST_F(CgroupTest, RootIsNeverRemoved) { EXPECT_THROW((void)remove_cgroup(layout_, "/"), Error); }

TEST(CapabilitySets, AreOurOwn) {
  const CapabilitySets sets = read_own_capabilities();
  EXPECT_NE(sets.effective & 1, 0u);  // CAP_CHOWN: the tests run as root
  EXPECT_EQ(capability_names()[21], "CAP_SYS_ADMIN");
  EXPECT_EQ(capability_names()[40], "CAP_CHECKPOINT_RESTORE");
}

TEST(Cgroup, FindsTheGroupOfThisProcess) {
  const CgroupLayout layout = probe_cgroups();
  const auto own = own_cgroup(layout, "pids");
  ASSERT_TRUE(own);
  EXPECT_NE(("\n" + read_file(*own / "cgroup.procs", 1 << 20)).find("\n" + std::to_string(::getpid()) + "\n"),
            std::string::npos);
  EXPECT_FALSE(own_cgroup(layout, "nosuch") && !layout.is_v2());
}

}  // namespace
}  // namespace gantry::sys
