#include "runtime/spec.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include <boost/json.hpp>

#include "json/json.hpp"
#include "runtime/capabilities.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {
namespace {

/// One member or item per line, so that a change of a golden file can be read.
void print(const json::Value& value, int indent, std::string& out) {
  const std::string pad(static_cast<std::size_t>(indent) + 2, ' ');
  const auto list = [&](char open, char close, const auto& items, auto print_item) {
    out += open;
    bool first = true;
    for (const auto& item : items) {
      out += first ? "\n" : ",\n";
      first = false;
      out += pad;
      print_item(item);
    }
    if (!first) out += "\n" + std::string(static_cast<std::size_t>(indent), ' ');
    out += close;
  };
  if (value.is_object()) {
    list('{', '}', value.get_object(), [&](const auto& member) {
      out += json::render(json::Value(member.key())) + ": ";
      print(member.value(), indent + 2, out);
    });
  } else if (value.is_array() && !value.get_array().empty() && !value.get_array()[0].is_primitive()) {
    list('[', ']', value.get_array(), [&](const json::Value& item) { print(item, indent + 2, out); });
  } else {
    out += json::render(value);
  }
}

/// Compares with tests/golden/oci/<name>.json; ACCEPT=1 writes it anew.
void expect_golden(const std::string& name, const std::string& text) {
  std::string printed;
  print(json::parse(text), 0, printed);
  printed += '\n';
  const auto file = std::filesystem::path(__FILE__).parent_path() / "../../tests/golden/oci" / (name + ".json");
  if (std::getenv("ACCEPT") != nullptr) sys::write_atomically(file, printed, 0644, false);
  EXPECT_EQ(sys::find_file(file).value_or("(no golden file: run with ACCEPT=1)"), printed);
}

HostFacts host() {
  HostFacts facts;
  facts.kernel_major = 6;
  facts.recursive_read_only = true;
  facts.thermal_throttle_paths = {"/sys/devices/system/cpu/cpu0/thermal_throttle"};
  return facts;
}

ContainerSpec plain() {
  ContainerSpec spec;
  spec.id = "0123456789abcdef";
  spec.args = {"sh", "-c", "echo \"hi\""};
  spec.env = {"A=1", "PATH=/bin"};
  spec.hostname = "0123456789ab";
  spec.rootfs = "/run/gantry/containers/0123456789abcdef/rootfs";
  spec.capabilities = default_capabilities();
  spec.cgroups_path = "/docker/0123456789abcdef";
  spec.net = NamespaceChoice::join("/run/gantry/netns/0123456789abcdef");
  spec.user.additional_gids = {0, 10};
  return spec;
}

TEST(OciConfig, DefaultContainer) { expect_golden("default", render_oci_config(plain(), host())); }

TEST(OciConfig, PrivilegedContainer) {
  ContainerSpec spec = plain();
  spec.privileged = true;
  spec.terminal = true;
  spec.console_size = ConsoleSize{24, 80};
  spec.devices = {{.path = "/dev/fuse", .type = 'c', .major = 10, .minor = 229, .file_mode = 0666}};
  spec.readonly_rootfs = true;
  expect_golden("privileged", render_oci_config(spec, host()));
}

TEST(OciConfig, EverythingSet) {
  ContainerSpec spec = plain();
  spec.user = {.uid = 1000, .gid = 1001, .additional_gids = {1001, 29}};
  spec.cwd = "/srv";
  spec.no_new_privileges = true;
  spec.oom_score_adj = -500;
  spec.ulimits = {{"nofile", 1024, -1}};
  spec.init_path = "/usr/bin/tini-static";
  spec.domainname = "example";
  spec.readonly_rootfs = true;
  spec.rootfs_propagation = "rslave";
  spec.mounts = {bind_mount("/srv/data", "/data/deep/er", {.read_only = true}, host()),
                 bind_mount("/srv", "/data", {.propagation = "rslave"}, host()),
                 tmpfs_mount("/scratch", {"size=1m", "exec", "uid=5"})};
  spec.masked_paths = std::vector<std::string>{"/proc/kcore"};
  spec.readonly_paths.emplace();
  spec.without_shm = true;
  spec.ipc = NamespaceChoice::join("/proc/1/ns/ipc");
  spec.pid = NamespaceChoice::host();
  spec.cgroup = NamespaceChoice::fresh();
  spec.seccomp = std::make_shared<const std::string>(R"({"defaultAction":"SCMP_ACT_ALLOW"})");
  spec.device_rules = {{.allow = true, .type = 'c', .major = 10, .minor = std::nullopt, .access = "r"}};
  spec.resources.memory = 64 << 20;
  spec.resources.memory_swap = -1;
  spec.resources.nano_cpus = 1'500'000'000;
  spec.resources.cpu_shares = 512;
  spec.resources.cpuset_cpus = "0";
  spec.resources.pids_limit = 100;
  spec.resources.oom_kill_disable = true;
  spec.resources.memory_swappiness = 0;
  spec.resources.blkio_weight = 300;
  spec.resources.blkio_read_bps = {{.path = "/dev/vda", .value = 1024, .major = 254, .minor = 0}};
  spec.sysctls = {{"net.core.somaxconn", "512"}, {"net.ipv4.ip_unprivileged_port_start", "1024"}};
  spec.annotations = {{"a.b", "c"}};
  expect_golden("everything", render_oci_config(spec, host()));
}

TEST(OciConfig, HostNamespacesAndOwnDev) {
  ContainerSpec spec = plain();
  spec.net = spec.uts = spec.ipc = spec.pid = NamespaceChoice::host();
  spec.shm_source = "/dev/shm";
  spec.mounts = {bind_mount("/dev", "/dev", {}, host())};
  const json::Value config = json::parse(render_oci_config(spec, host()));
  EXPECT_EQ(config.at("linux").at("namespaces").as_array().size(), 1u);
  EXPECT_FALSE(config.at("linux").as_object().contains("sysctl"));
  EXPECT_FALSE(config.as_object().contains("hostname"));
  for (const json::Value& mount : config.at("mounts").as_array())
    EXPECT_FALSE(mount.at("destination").as_string().starts_with("/dev/"));
}

TEST(OciConfig, NanoCpusDoNotOverflow) {
  Resources r;
  r.nano_cpus = std::int64_t{1024} * 1'000'000'000;
  EXPECT_EQ(render_oci_resources(r), R"({"cpu":{"period":100000,"quota":102400000}})");
  r.nano_cpus = 10'000'000;
  EXPECT_EQ(render_oci_resources(r), R"({"cpu":{"period":100000,"quota":1000}})");
}

TEST(OciProcess, ExecutesWithItsOwnEnvironment) {
  ProcessSpec process;
  process.args = {"id"};
  process.env = merge_env({"A=1", "B=2"}, {"B=3", "C=4", "A"});
  process.capabilities = {"CAP_CHOWN"};
  expect_golden("process", render_oci_process(process));
}

TEST(Environment, DefaultOnesComeFirstAndGiveWay) {
  EXPECT_EQ(render_env("web", true, {"DB_PORT=1"}, {"PATH=/bin", "X=1", "TERM", "X=2", "EMPTY="}),
            (std::vector<std::string>{"PATH=/bin", "HOSTNAME=web", "DB_PORT=1", "X=2", "EMPTY="}));
}

TEST(TmpfsMount, LaterOptionsWin) {
  const Mount mount = tmpfs_mount("/x", {"exec", "size=1m", "size=2m", "dev"});
  EXPECT_EQ(mount.options, (std::vector<std::string>{"nosuid", "rprivate", "exec", "size=2m", "dev"}));
}

}  // namespace
}  // namespace gantry::runtime
