// Real containers: what we render, run by the runc of this machine.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/mount.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "runtime/capabilities.hpp"
#include "runtime/devices.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/limits.hpp"
#include "runtime/seccomp.hpp"
#include "runtime/spec.hpp"
#include "runtime/users.hpp"
#include "sys/cgroup.hpp"
#include "sys/process.hpp"

namespace gantry::runtime {
namespace {

namespace fs = std::filesystem;

const HostFacts& facts() {
  static const HostFacts probed = probe_host();
  return probed;
}

class Runc : public testing::Test {
 protected:
  static constexpr const char* kParent = "/gantry-runtime-test";

  void SetUp() override {
    base_ = "/tmp/gantry-runc-" + random_id().substr(0, 8);
    for (const char* dir : {"bundle", "root/bin", "root/etc", "root/tmp", "root/proc", "root/sys", "root/dev", "state"})
      fs::create_directories(base_ / dir);
    fs::copy_file("/bin/busybox", base_ / "root/bin/busybox");
    for (const char* tool :
         {"sh",  "id",    "cat",  "hostname", "ls",     "grep",  "unshare", "mount", "touch", "ps",
          "env", "sleep", "stat", "ulimit",   "chroot", "chown", "true",    "tty",   "mknod", "head"})
      fs::create_symlink("busybox", base_ / "root/bin" / tool);
    std::ofstream(base_ / "root/etc/passwd") << "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n";
    std::ofstream(base_ / "root/etc/group") << "root:x:0:\nweb:x:1000:\naudio:x:29:web\n";
  }

  void TearDown() override {
    for (const auto& entry : fs::directory_iterator(base_ / "state"))
      runc({"delete", "--force", entry.path().filename().string()});
    sys::kill_cgroup(facts().cgroup, kParent);
    sys::remove_cgroup(facts().cgroup, kParent);
    fs::remove_all(base_);
  }

  ContainerSpec make(const std::string& script) {
    ContainerSpec spec;
    spec.id = random_id();
    spec.args = {"/bin/sh", "-c", script};
    spec.hostname = "box";
    spec.rootfs = base_ / "root";
    spec.capabilities = resolve_capabilities({}, facts().own_capabilities);
    spec.seccomp =
        std::make_shared<const std::string>(render_seccomp(default_seccomp_profile(), spec.capabilities, facts()));
    spec.cgroups_path = cgroups_path(kParent, spec.id, false);
    return spec;
  }

  sys::Output runc(std::vector<std::string> arguments) {
    sys::SpawnOptions options;
    options.argv = {facts().runc.path, "--root", (base_ / "state").string()};
    options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
    options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    return sys::run(std::move(options), 30);
  }

  /// Leaves the container created; its streams must not keep ours open.
  int create(const ContainerSpec& spec) {
    write_config(spec);
    sys::SpawnOptions options;
    options.argv = {"/bin/sh",
                    "-c",
                    "exec \"$@\" > /dev/null 2>&1",
                    "sh",
                    facts().runc.path,
                    "--root",
                    (base_ / "state").string(),
                    "create",
                    "--bundle",
                    (base_ / "bundle").string(),
                    spec.id};
    options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    return sys::run(std::move(options), 30).exit_code;
  }

  void write_config(const ContainerSpec& spec) {
    sys::write_atomically(base_ / "bundle/config.json", render_oci_config(spec, facts()), 0600, false);
  }

  /// Runs to the end; what the script printed, errors included.
  std::string run(const ContainerSpec& spec) {
    write_config(spec);
    const auto output = runc({"run", "--bundle", (base_ / "bundle").string(), spec.id});
    exit_code_ = output.exit_code;
    return output.stdout_text + output.stderr_text;
  }

  fs::path base_;
  int exit_code_ = -1;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)
#define EXPECT_HAS_NOT(text, part) EXPECT_EQ((text).find(part), std::string::npos) << (text)

TEST_F(Runc, DefaultContainerIsConfined) {
  auto spec = make(
      "id -u; hostname; echo $PATH; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status;"
      "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range;"
      "ls /dev; touch /sys/x; touch /proc/sys/kernel/x; cat /proc/kcore | head -c 1; echo kcore=$?; ls /sys/firmware;"
      "stat -c %a /dev/shm; grep ' /dev/shm ' /proc/mounts; mount -t tmpfs none /tmp; unshare -U true; echo end");
  const auto out = run(spec);
  EXPECT_TRUE(out.starts_with("0\nbox\n/usr/local/sbin:")) << out;
  EXPECT_HAS(out, "Seccomp:\t2");
  EXPECT_HAS(out, "\n0\n0\t2147483647\n");
  EXPECT_HAS(out, "touch: /sys/x: Read-only file system");
  EXPECT_HAS(out, "/proc/sys/kernel/x");
  EXPECT_HAS(out, "size=65536k");
  EXPECT_HAS(out, "unshare: unshare(0x10000000): Operation not permitted");
  EXPECT_HAS(out, "mount: ");
  EXPECT_HAS(out, "end\n");
  EXPECT_EQ(exit_code_, 0);
}

TEST_F(Runc, DefaultCapabilitiesAreExact) {
  auto spec = make("grep Cap /proc/self/status");
  const auto out = run(spec);
  EXPECT_HAS(out, "CapEff:\t00000000a80425fb");
  EXPECT_HAS(out, "CapBnd:\t00000000a80425fb");
  EXPECT_HAS(out, "CapInh:\t0000000000000000");
  EXPECT_HAS(out, "CapAmb:\t0000000000000000");
}

TEST_F(Runc, UserLosesEffectiveCapabilities) {
  auto spec = make("id; echo $HOME; grep CapEff /proc/self/status");
  spec.user = resolve_user_blocking(spec.rootfs, "web", {"44"}).user;
  const auto out = run(spec);
  EXPECT_HAS(out, "uid=1000(web) gid=1000(web) groups=29(audio),44,1000(web)");
  EXPECT_HAS(out, "/srv");
  EXPECT_HAS(out, "CapEff:\t0000000000000000");
}

TEST_F(Runc, PrivilegedHasEverythingThatWeHave) {
  auto spec = make(
      "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; touch /sys/kernel/x; ls /proc/acpi;"
      "mount -t tmpfs none /tmp && echo mounted; ls /dev; mknod /tmp/n b 7 0 && head -c 0 /tmp/n && echo ok");
  spec.privileged = true;
  CapabilityRequest request;
  request.privileged = true;
  spec.capabilities = resolve_capabilities(request, facts().own_capabilities);
  spec.seccomp = nullptr;
  spec.devices = list_host_devices_blocking();
  const auto out = run(spec);
  EXPECT_HAS(out, "Seccomp:\t0");
  EXPECT_HAS_NOT(out, "Read-only");
  EXPECT_HAS(out, "mounted");
  EXPECT_HAS(out, "fuse");
  EXPECT_HAS(out, "ok\n");
}

TEST_F(Runc, ReadOnlyRootLeavesTmpfsAndDev) {
  auto spec = make(
      "touch /x; touch /tmp/x && echo tmp; touch /dev/shm/x && echo shm; touch /run/y && echo run;"
      "grep ' /run ' /proc/mounts");
  fs::create_directories(base_ / "root/run");
  spec.readonly_rootfs = true;
  spec.mounts = {tmpfs_mount("/tmp", {"size=1m"}), tmpfs_mount("/run", {"exec", "mode=700"})};
  const auto out = run(spec);
  EXPECT_HAS(out, "touch: /x: Read-only file system");
  EXPECT_HAS(out, "tmp\nshm\nrun\n");
  EXPECT_HAS(out, "mode=700");
  EXPECT_HAS_NOT(out, "noexec");
}

TEST_F(Runc, BindsAreReadOnlyAllTheWayDown) {
  const auto source = base_ / "source";
  fs::create_directories(source / "sub");
  ASSERT_EQ(::mount("none", (source / "sub").c_str(), "tmpfs", 0, nullptr), 0);
  auto spec = make("touch /data/a; touch /data/sub/b; touch /rw/c && echo rw");
  spec.mounts = {bind_mount(source, "/data", {.read_only = true}, facts()), bind_mount(source, "/rw", {}, facts())};
  const auto out = run(spec);
  ::umount2((source / "sub").c_str(), MNT_DETACH);
  EXPECT_HAS(out, "touch: /data/a: Read-only file system");
  EXPECT_HAS(out, "touch: /data/sub/b: Read-only file system");
  EXPECT_HAS(out, "rw\n");
}

TEST_F(Runc, SeccompDecidesByCapability) {
  auto spec = make("unshare -m true && echo unshared; chroot / true && echo rooted");
  spec.capabilities = resolve_capabilities({{"SYS_ADMIN"}, {"SYS_CHROOT"}}, facts().own_capabilities);
  spec.seccomp =
      std::make_shared<const std::string>(render_seccomp(default_seccomp_profile(), spec.capabilities, facts()));
  const auto out = run(spec);
  EXPECT_HAS(out, "unshared");
  EXPECT_HAS_NOT(out, "rooted");
}

TEST_F(Runc, LimitsReachTheControlGroup) {
  auto spec = make("sleep 30");
  spec.resources.memory = 64 << 20;
  spec.resources.pids_limit = 17;
  spec.resources.nano_cpus = 500'000'000;
  spec.resources.cpu_shares = 512;
  spec.resources.cpuset_cpus = "0";
  EXPECT_TRUE(validate_resources(spec.resources, facts()).empty());
  ASSERT_EQ(create(spec), 0);
  const std::string& group = spec.cgroups_path;
  const auto stats = sys::read_cgroup_stats(facts().cgroup, group);
  EXPECT_EQ(stats.memory_limit, 64u << 20);
  EXPECT_EQ(stats.pids_limit, 17u);
  EXPECT_GE(stats.pids_current, 1u);
  EXPECT_FALSE(sys::list_cgroup_pids(facts().cgroup, group).empty());
  const auto file = [&](const char* controller, const char* name) {
    const auto directory = facts().cgroup.directory(controller, group);
    return directory ? std::string(trim(sys::try_read_small(*directory / name).value_or(""))) : std::string();
  };
  if (!facts().cgroup.is_v2()) {
    EXPECT_EQ(file("memory", "memory.memsw.limit_in_bytes"), std::to_string(128 << 20));
    EXPECT_EQ(file("cpu", "cpu.cfs_quota_us"), "50000");
    EXPECT_EQ(file("cpu", "cpu.shares"), "512");
    EXPECT_EQ(file("cpuset", "cpuset.cpus"), "0");
  }
  Resources update;
  update.memory = 32 << 20;
  update.memory_swap = 64 << 20;
  update.pids_limit = -1;
  sys::write_atomically(base_ / "update.json", render_oci_resources(update), 0600, false);
  EXPECT_EQ(runc({"update", "--resources", (base_ / "update.json").string(), spec.id}).exit_code, 0);
  EXPECT_EQ(sys::read_cgroup_stats(facts().cgroup, group).memory_limit, 32u << 20);
  EXPECT_EQ(sys::read_cgroup_stats(facts().cgroup, group).pids_limit, 0u);
  const auto children = sys::list_child_cgroups(facts().cgroup, kParent);
  EXPECT_EQ(children, std::vector<std::string>{spec.id});
  EXPECT_EQ(runc({"delete", "--force", spec.id}).exit_code, 0);
  EXPECT_TRUE(sys::remove_cgroup(facts().cgroup, group));
  EXPECT_TRUE(sys::list_child_cgroups(facts().cgroup, kParent).empty());
}

TEST_F(Runc, SysctlsUlimitsAndNames) {
  auto spec = make(
      "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/domainname;"
      "ulimit -n; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj");
  spec.sysctls = {{"net.core.somaxconn", "512"}, {"kernel.shm_rmid_forced", "1"}};
  spec.domainname = "example";
  spec.ulimits = {{"nofile", 100, 200}};
  spec.no_new_privileges = true;
  spec.oom_score_adj = 500;
  EXPECT_EQ(run(spec), "512\n1\nexample\n100\nNoNewPrivs:\t1\n500\n");
}

TEST_F(Runc, InitIsTheFirstProcess) {
  if (facts().init.path.empty()) GTEST_FAIL() << "no init program on this machine";
  auto spec = make("cat /proc/1/comm; echo pid=$$");
  spec.init_path = facts().init.path;
  const auto out = run(spec);
  EXPECT_HAS(out, "docker-init\n");
  EXPECT_HAS_NOT(out, "pid=1\n");
}

TEST_F(Runc, DevicesAreWhatWasAskedFor) {
  auto spec = make("ls /dev/other && cat /dev/other | head -c 1; echo; mknod /tmp/k c 10 229; cat /tmp/k");
  const auto found = resolve_device_blocking({"/dev/zero", "/dev/other", "r"});
  spec.devices = found.devices;
  spec.device_rules = found.rules;
  const auto out = run(spec);
  EXPECT_HAS(out, "/dev/other\n");
  EXPECT_HAS(out, "cat: can't open '/tmp/k': Operation not permitted");
}

TEST_F(Runc, MaskedPathsCanBeOpened) {
  auto spec = make(
      "ls -d /sys/firmware; ls /sys/firmware | head -n 1 && touch /proc/sys/net/x; echo 700 > "
      "/proc/sys/net/core/somaxconn && cat /proc/sys/net/core/somaxconn");
  spec.masked_paths.emplace();
  spec.readonly_paths.emplace();
  EXPECT_HAS(run(spec), "700");
}

TEST_F(Runc, ExecRunsAProcessDescription) {
  auto spec = make("sleep 30");
  ASSERT_EQ(create(spec), 0);
  ASSERT_EQ(runc({"start", spec.id}).exit_code, 0);
  ProcessSpec process;
  process.args = {"sh", "-c", "id -u; echo $A; grep CapEff /proc/self/status"};
  process.env = merge_env(render_env("box", false, {}, {}), {"A=1"});
  process.user = {.uid = 5, .gid = 5, .additional_gids = {}};
  process.capabilities = spec.capabilities;
  sys::write_atomically(base_ / "process.json", render_oci_process(process), 0600, false);
  const auto output = runc({"exec", "--process", (base_ / "process.json").string(), spec.id});
  EXPECT_EQ(output.stdout_text, "5\n1\nCapEff:\t0000000000000000\n") << output.stderr_text;
  EXPECT_EQ(runc({"delete", "--force", spec.id}).exit_code, 0);
}

TEST_F(Runc, PrivateIpcAndShmChoices) {
  auto spec = make("grep -c ' /dev/shm ' /proc/mounts; ls /dev/mqueue; echo ok");
  spec.without_shm = true;
  EXPECT_EQ(run(spec), "0\nok\n");
  fs::create_directories(base_ / "shm");
  std::ofstream(base_ / "shm/seen") << "x";
  auto shared = make("ls /dev/shm");
  shared.shm_source = base_ / "shm";
  EXPECT_EQ(run(shared), "seen\n");
  auto sized = make("grep ' /dev/shm ' /proc/mounts");
  sized.shm_size = 1 << 20;
  EXPECT_HAS(run(sized), "size=1024k");
}

TEST(HostFacts, TellsAboutThisMachine) {
  const HostFacts& host = facts();
  EXPECT_NE(host.cgroup.mode, sys::CgroupMode::none);
  EXPECT_GE(host.kernel_major, 5);
  EXPECT_GT(host.cpus, 0);
  EXPECT_GT(host.memory_bytes, 0);
  EXPECT_TRUE(host.seccomp);
  EXPECT_TRUE(host.overlay);
  EXPECT_FALSE(host.operating_system.empty());
  EXPECT_FALSE(host.runc.version.empty());
  EXPECT_FALSE(host.runc.commit.empty());
  EXPECT_FALSE(host.own_capabilities.empty());
  EXPECT_TRUE(host.memory_limit);
  EXPECT_TRUE(host.pids_limit);
}

}  // namespace
}  // namespace gantry::runtime
