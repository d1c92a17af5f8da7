#include "runtime/limits.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::runtime {
namespace {

HostFacts able_host() {
  HostFacts facts;
  facts.cpus = 2;
  facts.cpus_online = "0-1";
  facts.mems_online = "0";
  facts.memory_limit = facts.swap_limit = facts.memory_reservation = facts.memory_swappiness = true;
  facts.oom_kill_disable = facts.cpu_shares = facts.cpu_cfs = facts.cpuset = facts.pids_limit = true;
  facts.blkio_weight = true;
  return facts;
}

template <class Change>
std::string error_of(Change change, const HostFacts& facts = able_host()) {
  Resources r;
  change(r);
  try {
    (void)validate_resources(r, facts);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
  return "";
}

constexpr std::int64_t kMiB = 1 << 20;

TEST(Limits, MemoryTextsAreDockers) {
  for (const std::int64_t bytes : {std::int64_t{1}, std::int64_t{-1}, std::int64_t{-5}, 6 * kMiB - 1})
    EXPECT_EQ(error_of([&](Resources& r) { r.memory = bytes; }), "Minimum memory limit allowed is 6MB");
  EXPECT_EQ(error_of([](Resources& r) { r.memory = 20 * kMiB, r.memory_swap = 10 * kMiB; }),
            "Minimum memoryswap limit should be larger than memory limit, see usage");
  EXPECT_EQ(error_of([](Resources& r) { r.memory_swap = 10 * kMiB; }),
            "You should always set the Memory limit when using Memoryswap limit, see usage");
  EXPECT_EQ(error_of([](Resources& r) { r.memory = 20 * kMiB, r.memory_reservation = 30 * kMiB; }),
            "Minimum memory limit can not be less than memory reservation limit, see usage");
  EXPECT_EQ(error_of([](Resources& r) { r.memory_swappiness = 101; }),
            "Invalid value: 101, valid memory swappiness range is 0-100");
}

TEST(Limits, SwapIsTwiceTheMemoryUnlessSaid) {
  Resources r;
  r.memory = 64 * kMiB;
  EXPECT_TRUE(validate_resources(r, able_host()).empty());
  EXPECT_EQ(r.memory_swap, 128 * kMiB);
  r.memory_swap = -1;
  (void)validate_resources(r, able_host());
  EXPECT_EQ(r.memory_swap, -1);
}

TEST(Limits, CpuTextsAreDockers) {
  const std::string range = "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available";
  EXPECT_EQ(error_of([](Resources& r) { r.nano_cpus = -1; }), range);
  EXPECT_EQ(error_of([](Resources& r) { r.nano_cpus = 1'000'000'000'000'000'000; }), range);
  EXPECT_EQ(error_of([](Resources& r) { r.nano_cpus = 1'000'000'000, r.cpu_period = 100000; }),
            "Conflicting options: Nano CPUs and CPU Period cannot both be set");
  EXPECT_EQ(error_of([](Resources& r) { r.cpuset_cpus = "0-5"; }),
            "Requested CPUs are not available - requested 0-5, available: 0-1");
  EXPECT_EQ(error_of([](Resources& r) { r.cpuset_cpus = "x"; }), "Invalid value x for cpuset cpus");
  EXPECT_EQ(error_of([](Resources& r) { r.cpuset_cpus = "0-999999999"; }), "Invalid value 0-999999999 for cpuset cpus");
  EXPECT_NE(error_of([](Resources& r) { r.cpu_period = 1; }), "");
  EXPECT_NE(error_of([](Resources& r) { r.cpu_shares = -1; }), "");
  EXPECT_EQ(error_of([](Resources& r) { r.cpuset_cpus = "0,1", r.nano_cpus = 1'500'000'000; }), "");
  EXPECT_EQ(error_of([](Resources& r) { r.blkio_weight = 5; }), "Range of blkio weight is from 10 to 1000");
}

TEST(Limits, WhatTheHostCannotDoIsDroppedWithAWarning) {
  Resources r;
  r.memory = 64 * kMiB;
  r.pids_limit = 10;
  r.blkio_weight = 100;
  r.blkio_read_bps = {{.path = "/dev/vda", .value = 1}};
  HostFacts facts;
  facts.cpus = 1;
  const auto warnings = validate_resources(r, facts);
  EXPECT_EQ(warnings.size(), 4u);
  EXPECT_EQ(warnings[0],
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation "
            "discarded.");
  EXPECT_EQ(r.memory, 0);
  EXPECT_FALSE(r.pids_limit.has_value());
  EXPECT_EQ(r.blkio_weight, 0);
  EXPECT_TRUE(r.blkio_read_bps.empty());
}

TEST(Limits, UpdatePutsChangesOverTheCurrentOnes) {
  Resources current;
  current.memory = 64 * kMiB;
  current.memory_swap = 128 * kMiB;
  current.cpu_shares = 512;
  Resources changes;
  changes.memory = 256 * kMiB;
  try {
    (void)apply_update(current, changes);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(),
              "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same "
              "time");
  }
  changes.memory_swap = -1;
  const Resources merged = apply_update(current, changes);
  EXPECT_EQ(merged.memory, 256 * kMiB);
  EXPECT_EQ(merged.memory_swap, -1);
  EXPECT_EQ(merged.cpu_shares, 512);
}

TEST(Limits, SysctlsBelongToOwnNamespaces) {
  const auto error = [](const std::string& name, SysctlScope scope = {}) -> std::string {
    try {
      validate_sysctls({{name, "1"}}, scope);
    } catch (const Error& e) {
      return e.message();
    }
    return "";
  };
  EXPECT_EQ(error("net.core.somaxconn"), "");
  EXPECT_EQ(error("net/ipv4/conf/eth0.1/forwarding"), "");
  EXPECT_EQ(error("kernel.shmmax"), "");
  EXPECT_EQ(error("fs.mqueue.msg_max"), "");
  EXPECT_EQ(error("kernel.core_pattern"), "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace");
  EXPECT_NE(error("net.ipv4/../../kernel/core_pattern"), "");
  EXPECT_NE(error("kernel.hostname"), "");
  EXPECT_NE(error(""), "");
  SysctlScope host;
  host.private_net = host.private_ipc = false;
  EXPECT_EQ(error("net.core.somaxconn", host), "sysctl \"net.core.somaxconn\" not allowed in host network namespace");
  EXPECT_NE(error("kernel.shmmax", host), "");
}

TEST(Limits, SmallRulesHoldTheirBounds) {
  EXPECT_THROW(validate_oom_score_adj(1001), Error);
  EXPECT_NO_THROW(validate_oom_score_adj(-1000));
  EXPECT_THROW(validate_shm_size(-1), Error);
  EXPECT_THROW(validate_ulimits({{"bogus", 1, 1}}), Error);
  EXPECT_THROW(validate_ulimits({{"nofile", 2, 1}}), Error);
  EXPECT_THROW(validate_ulimits({{"nofile", -1, 1}}), Error);
  EXPECT_NO_THROW(validate_ulimits({{"nofile", 1024, -1}}));
  EXPECT_THROW(validate_cgroup_parent("/../../x", false), Error);
  EXPECT_THROW(validate_cgroup_parent(std::string("a\0b", 3), false), Error);
  EXPECT_THROW(validate_cgroup_parent("a/b", true), Error);
  EXPECT_NO_THROW(validate_cgroup_parent("/team/a", false));
  EXPECT_EQ(cgroups_path("", "abc", false), "/docker/abc");
  EXPECT_EQ(cgroups_path("team//a/", "abc", false), "/team/a/abc");
  EXPECT_EQ(cgroups_path("", "abc", true), "system.slice:docker:abc");
  for (const char* bad : {"-a.slice", "a--b.slice", ".slice", "a/b.slice", "a"})
    EXPECT_THROW(validate_cgroup_parent(bad, true), Error) << bad;
  for (const char* good : {"", "-.slice", "a.slice", "a-b.slice"})
    EXPECT_NO_THROW(validate_cgroup_parent(good, true)) << good;
  EXPECT_EQ(cgroup_directory("team//a/", "abc", false), "/team/a/abc");
  EXPECT_EQ(cgroup_directory("", "abc", true), "/system.slice/docker-abc.scope");
  EXPECT_EQ(cgroup_directory("a-b.slice", "abc", true), "/a.slice/a-b.slice/docker-abc.scope");
  EXPECT_EQ(cgroup_directory("-.slice", "abc", true), "/docker-abc.scope");
  EXPECT_EQ(cgroup_directory("/team", "abc", true), "/team/abc");
  EXPECT_THROW(validate_path_list({"relative"}, "MaskedPaths"), Error);
  EXPECT_THROW(validate_path_list({"/../../etc"}, "MaskedPaths"), Error);
}

TEST(Limits, OwnUlimitsReplaceTheDefaultOnes) {
  const auto merged = merge_ulimits({{"nofile", 1, 2}, {"core", 0, 0}}, {{"nofile", 5, 6}});
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(merged[0].name, "core");
  EXPECT_EQ(merged[1].soft, 5);
}

}  // namespace
}  // namespace gantry::runtime
