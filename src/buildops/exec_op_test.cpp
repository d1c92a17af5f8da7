#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/error.hpp"
#include "buildops/world_for_test.hpp"
#include "solver/solver.hpp"
#include "sys/mount.hpp"

namespace gantry::buildops {
namespace {

using buildcache::SnapshotPtr;
using test::error_of;
using test::Tree;
using test::World;

class Exec : public ::testing::Test {
 protected:
  /// RUN of a shell command on the first input.
  static pb::Op shell(const std::string& command) {
    pb::Op op;
    pb::Meta& meta = *op.mutable_exec()->mutable_meta();
    for (const char* arg : {"/bin/sh", "-c"}) meta.add_args(arg);
    meta.add_args(command);
    meta.set_cwd("/");
    meta.add_env("PATH=/bin");
    pb::Mount& root = *op.mutable_exec()->add_mounts();
    root.set_dest("/");
    return op;
  }
  static pb::Mount& mount(pb::Op& op, const std::string& dest, pb::MountType type = pb::MOUNT_BIND) {
    pb::Mount& mount = *op.mutable_exec()->add_mounts();
    mount.set_dest(dest);
    mount.set_mount_type(type);
    mount.set_input(-1);
    mount.set_output(-1);
    return mount;
  }
  SnapshotPtr run(const pb::Op& op, std::vector<SnapshotPtr> inputs = {}) {
    inputs.insert(inputs.begin(), base);
    return world.execute(world.vertex(op, inputs.size()), inputs).at(0);
  }
  SnapshotPtr run(const std::string& command) { return run(shell(command)); }
  /// What a step added or changed.
  std::map<std::string, std::string> layer(const SnapshotPtr& snapshot) {
    return Tree(snapshot->directory()).describe();
  }

  World world;
  SnapshotPtr base = world.busybox();
};

TEST_F(Exec, TheLayerHoldsWhatTheProcessWroteAndNothingElse) {
  const SnapshotPtr made = run("echo out; echo err >&2; echo x > /made; cat /etc/hosts; hostname");
  EXPECT_EQ(layer(made), (std::map<std::string, std::string>{{"made", "f 0644 0:0 x\n"}, {"etc", "d 0755 0:0"}}));
  EXPECT_NE(world.progress.text().find("out\n"), std::string::npos);
  EXPECT_NE(world.progress.text().find("err\n"), std::string::npos);
  EXPECT_NE(world.progress.text().find("127.0.0.1\tlocalhost buildkitsandbox\n"), std::string::npos);
  world.factory = nullptr;  // ends what is done later
  EXPECT_EQ(world.engine.networks, 0) << "the network is given back";
  EXPECT_EQ(sys::list_mounts(world.services->run_directory).size(), 0U);
  EXPECT_TRUE(sys::list_directory(world.services->run_directory / "exec").empty());
}

TEST_F(Exec, AFailureNamesTheCommandAndItsStatus) {
  try {
    run("exit 5");
    FAIL();
  } catch (const solver::ExitError& e) {
    EXPECT_EQ(e.exit_code(), 5);
    EXPECT_EQ(e.message(), "process \"/bin/sh -c exit 5\" did not complete successfully: exit code: 5");
  }
  pb::Op op = shell("exit 5");
  op.mutable_exec()->mutable_meta()->add_valid_exit_codes(5);
  EXPECT_NE(run(op), nullptr);
  op = shell("true");
  op.mutable_exec()->mutable_meta()->set_user("nobody-here");
  EXPECT_EQ(error_of([&] { run(op); }),
            "process \"/bin/sh -c true\" did not complete successfully: unable to find user nobody-here: no matching "
            "entries in passwd file");
  pb::Op missing;
  missing.mutable_exec()->mutable_meta()->add_args("no-such-program");
  missing.mutable_exec()->add_mounts()->set_dest("/");
  EXPECT_EQ(error_of([&] { run(missing); }), "process \"no-such-program\" did not complete successfully: exit code: 1");
  EXPECT_NE(world.progress.text().find("executable file not found in $PATH"), std::string::npos);
}

TEST_F(Exec, UserGroupsDirectoryAndEnvironmentAreTheStepsOwn) {
  pb::Op op = shell("id; pwd; env; stat -c '%U:%a' /new/dir; echo HOST=$HOSTNAME");
  pb::Meta& meta = *op.mutable_exec()->mutable_meta();
  meta.set_user("daemon");
  meta.set_cwd("/new/dir");
  meta.add_env("A=1");
  meta.mutable_proxy_env()->set_http_proxy("http://proxy");
  const SnapshotPtr made = run(op);
  const std::string text = world.progress.text();
  EXPECT_NE(text.find("uid=1(daemon) gid=1(daemon) groups=1(daemon),77(extra)"), std::string::npos) << text;
  EXPECT_NE(text.find("/new/dir\n"), std::string::npos);
  EXPECT_NE(text.find("A=1\n"), std::string::npos);
  EXPECT_NE(text.find("http_proxy=http://proxy\n"), std::string::npos);
  EXPECT_NE(text.find("HOME=/home/d\n"), std::string::npos);
  EXPECT_EQ(text.find("\nHOSTNAME="), std::string::npos);
  EXPECT_EQ(world.look(made, "new/dir"), "d 0755 1:1");
}

TEST_F(Exec, MountsLeaveNothingBehind) {
  const SnapshotPtr context = world.tree([](Tree& tree) { tree.file("sub/file", "from context"); });
  pb::Op op = shell("cat /context/file; touch /context/x && exit 9; echo y > /rw/file; echo z > /t/mp/z; true");
  pb::Mount& read_only = mount(op, "/context");
  read_only.set_input(1);
  read_only.set_selector("/sub");
  read_only.set_readonly(true);
  pb::Mount& writable = mount(op, "/rw");
  writable.set_input(1);
  writable.set_selector("/sub");
  mount(op, "/t/mp", pb::MOUNT_TMPFS).mutable_tmpfs_opt()->set_size(1 << 20);
  const SnapshotPtr made = run(op, {context});
  EXPECT_NE(world.progress.text().find("from context"), std::string::npos);
  EXPECT_EQ(layer(made), (std::map<std::string, std::string>{{"etc", "d 0755 0:0"}}));
  EXPECT_EQ(world.look(context, "sub/file"), "f 0644 0:0 from context") << "what is written to a mount is dropped";
}

TEST_F(Exec, ACacheMountOutlivesTheStepAndStaysInside) {
  pb::Op op = shell("echo $(cat /cache/n 2>/dev/null)1 > /cache/n; cat /cache/n");
  mount(op, "/cache", pb::MOUNT_CACHE).mutable_cache_opt()->set_id("id");
  run(op);
  const SnapshotPtr made = run(op);
  EXPECT_EQ(world.progress.text(), "1\n11\n");
  EXPECT_EQ(layer(made).count("cache"), 0U);

  pb::Op link = shell("ln -s /etc /cache/out || /bin/busybox ln -s /etc /cache/out");
  mount(link, "/cache", pb::MOUNT_CACHE).mutable_cache_opt()->set_id("id");
  run(link);
  pb::Op escape = shell("cat /cache/hostname /cache/passwd");
  pb::Mount& through = mount(escape, "/cache", pb::MOUNT_CACHE);
  through.mutable_cache_opt()->set_id("id");
  through.set_selector("out");
  EXPECT_EQ(error_of([&] { run(escape); }), "\"/out\": not found");
}

TEST_F(Exec, ALockedCacheMayBeMountedTwiceInOneStep) {
  pb::Op op = shell("echo seen > /a/f; cat /b/f");
  for (const char* path : {"/a", "/b"}) {
    pb::CacheOpt& cache = *mount(op, path, pb::MOUNT_CACHE).mutable_cache_opt();
    cache.set_id("id");
    cache.set_sharing(pb::SHARING_LOCKED);
  }
  run(op);
  EXPECT_EQ(world.progress.text(), "seen\n");
}

TEST_F(Exec, SecretsNeedASession) {
  pb::Op op = shell("test ! -e /run/secrets/s");
  pb::Mount& secret = mount(op, "/run/secrets/s", pb::MOUNT_SECRET);
  secret.mutable_secret_opt()->set_id("s");
  EXPECT_EQ(error_of([&] { run(op); }), "secret s: not found");
  secret.mutable_secret_opt()->set_optional(true);
  EXPECT_EQ(layer(run(op)).count("run"), 0U);
}

TEST_F(Exec, ImagesWithoutDirectoriesStayWithoutThem) {
  base = world.tree([](Tree& tree) { tree.file("bin/sh", sys::read_file("/bin/busybox"), 0755); });
  EXPECT_EQ(layer(run("true")), (std::map<std::string, std::string>{}));
}

TEST_F(Exec, NetworksAndPrivilegesNeedEntitlements) {
  pb::Op op = shell("true");
  op.mutable_exec()->set_network(pb::NET_HOST);
  EXPECT_EQ(error_of([&] { run(op); }), "network.host is not allowed");
  world.entitlements = {"network.host"};
  run(op);
  EXPECT_EQ(world.engine.attached.back().mode, "host");
  op.mutable_exec()->set_security(pb::SECURITY_INSECURE);
  EXPECT_EQ(error_of([&] { run(op); }), "security.insecure is not allowed");
  op = shell("grep CapEff /proc/self/status");
  run(op);
  EXPECT_NE(world.progress.text().find("00000000a80425fb"), std::string::npos) << world.progress.text();
  world.execute(world.vertex(op, 1, {{"gantry.network", "mine"}}), {base});
  EXPECT_EQ(world.engine.attached.back().mode, "mine");
}

TEST_F(Exec, AStopKillsEverything) {
  std::jthread stopper([&] {
    while (world.progress.text().find("started") == std::string::npos) std::this_thread::yield();
    world.stop.request_stop();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(error_of([&] { run("trap '' TERM INT; sleep 1000 & echo started; sleep 1000; sleep 1000"); }),
            "context canceled");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_TRUE(sys::list_cgroup_pids(world.facts.cgroup, world.engine.configured.CgroupParent).empty());
  world.factory = nullptr;
  EXPECT_EQ(world.engine.networks, 0);
  EXPECT_TRUE(sys::list_directory(world.services->run_directory / "runtime").empty());
}

TEST_F(Exec, LimitsAndHostsAreTheStepsOwn) {
  pb::Op op = shell("ulimit -n; head -c0 /dev/zero; /bin/busybox df -k /dev/shm");
  pb::Ulimit& limit = *op.mutable_exec()->mutable_meta()->add_ulimit();
  limit.set_name("nofile");
  limit.set_soft(1062);
  limit.set_hard(1062);
  mount(op, "/dev/shm", pb::MOUNT_TMPFS).mutable_tmpfs_opt()->set_size(131072 << 10);
  pb::HostIP& host = *op.mutable_exec()->mutable_meta()->add_extra_hosts();
  host.set_host("db");
  host.set_ip("10.0.0.1");
  run(op);
  EXPECT_NE(world.progress.text().find("1062\n"), std::string::npos) << world.progress.text();
  EXPECT_NE(world.progress.text().find(" 131072 "), std::string::npos) << world.progress.text();
  EXPECT_EQ(world.engine.attached.back().extra_hosts, std::vector<std::string>{"db:10.0.0.1"});
}

TEST_F(Exec, TheKeyKnowsWhatMattersAndNothingElse) {
  const auto key = [&](const pb::Op& op) { return world.cache_map(world.vertex(op, 1)).key; };
  pb::Op op = shell("true");
  const std::string plain = key(op);
  pb::Op other = op;
  other.mutable_exec()->mutable_meta()->add_env("B=1");
  EXPECT_NE(key(other), plain);
  other = op;
  other.mutable_exec()->mutable_meta()->mutable_proxy_env()->set_http_proxy("http://p");
  EXPECT_EQ(key(other), plain);
  other = op;
  other.mutable_exec()->mutable_meta()->add_extra_hosts()->set_host("h");
  const std::string named = key(other);
  EXPECT_NE(named, plain);
  other.mutable_exec()->mutable_meta()->mutable_extra_hosts(0)->set_ip("1.2.3.4");
  EXPECT_EQ(key(other), named);
  other = op;
  mount(other, "/c", pb::MOUNT_CACHE).mutable_cache_opt()->set_id("/c");
  const std::string cached = key(other);
  other.mutable_exec()->mutable_mounts(1)->mutable_cache_opt()->set_id("one");
  const std::string one = key(other);
  other.mutable_exec()->mutable_mounts(1)->mutable_cache_opt()->set_id("two");
  EXPECT_EQ(key(other), one);
  EXPECT_NE(one, cached);
}

TEST_F(Exec, OnlyWhatCannotReachTheResultGoesByContent) {
  const auto deps = [&](bool read_only, std::int64_t output, const std::string& selector) {
    pb::Op op = shell("true");
    pb::Mount& bound = mount(op, "/m");
    bound.set_input(1);
    bound.set_readonly(read_only);
    bound.set_output(output);
    bound.set_selector(selector);
    return world.cache_map(world.vertex(op, 2)).deps;
  };
  EXPECT_FALSE(deps(true, -1, "/s")[0].by_content);
  EXPECT_TRUE(deps(true, -1, "/s")[1].by_content);
  EXPECT_EQ(deps(true, -1, "s/../t")[1].selectors.at(0).path, "/t");
  EXPECT_TRUE(deps(false, -1, "/s")[1].by_content);
  EXPECT_TRUE(deps(false, 1, "/")[1].by_content);
  EXPECT_FALSE(deps(false, 1, "/s")[1].by_content);
}

}  // namespace
}  // namespace gantry::buildops
