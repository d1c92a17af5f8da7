#include "runtime/host_facts.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "runtime/capabilities.hpp"
#include "sys/fd.hpp"
#include "sys/process.hpp"

namespace gantry::runtime {
namespace {

constexpr std::string_view kProgramPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

bool has_file(const sys::Path& path) { return ::access(path.c_str(), F_OK) == 0; }

std::string small_text(const sys::Path& path) {
  const auto text = sys::try_read_small(path);
  return text ? std::string(trim(*text)) : std::string();
}

std::string goarch_of(std::string_view machine) {
  if (machine == "x86_64") return "amd64";
  if (machine == "aarch64") return "arm64";
  if (machine.starts_with("armv")) return "arm";
  if (machine == "i386" || machine == "i686") return "386";
  return std::string(machine);  // s390x, ppc64le, riscv64 …
}

/// The value of KEY in an os-release(5) file, unquoted.
std::string os_release(const std::string& text, std::string_view key) {
  for (const std::string& line : split(text, '\n')) {
    const auto [name, raw] = split_once(line, '=');
    if (name != key) continue;
    auto value = trim(raw);
    if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front())
      value = value.substr(1, value.size() - 2);
    return std::string(value);
  }
  return {};
}

void probe_machine(HostFacts& facts) {
  utsname names{};
  if (::uname(&names) == 0) {
    facts.kernel_version = names.release;
    facts.architecture = names.machine;
    facts.hostname = names.nodename;
  }
  facts.goarch = goarch_of(facts.architecture);
  const auto [major, rest] = split_once(facts.kernel_version, '.');
  facts.kernel_major = static_cast<int>(parse_int(major).value_or(0));
  facts.kernel_minor = static_cast<int>(parse_int(rest.substr(0, rest.find_first_not_of("0123456789"))).value_or(0));
  auto release = sys::try_read_small("/etc/os-release");
  if (!release) release = sys::try_read_small("/usr/lib/os-release");
  facts.operating_system = release ? os_release(*release, "PRETTY_NAME") : std::string();
  if (facts.operating_system.empty()) facts.operating_system = "Linux";
  facts.os_version = release ? os_release(*release, "VERSION_ID") : std::string();
  cpu_set_t set;
  CPU_ZERO(&set);
  facts.cpus = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                             : static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  facts.memory_bytes = std::int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  facts.cpus_online = small_text("/sys/devices/system/cpu/online");
  facts.mems_online = small_text("/sys/devices/system/node/online");
  if (facts.mems_online.empty()) facts.mems_online = "0";
  facts.systemd = has_file("/run/systemd/system");
}

void probe_cgroup_v1(HostFacts& facts) {
  const auto has = [&](std::string_view controller, const char* file) {
    const auto dir = facts.cgroup.directory(controller, "/");
    return dir && has_file(*dir / file);
  };
  facts.memory_limit = facts.cgroup.has("memory");
  facts.swap_limit = has("memory", "memory.memsw.limit_in_bytes");
  facts.memory_reservation = has("memory", "memory.soft_limit_in_bytes");
  facts.memory_swappiness = has("memory", "memory.swappiness");
  facts.oom_kill_disable = has("memory", "memory.oom_control");
  facts.cpu_shares = has("cpu", "cpu.shares");
  // The root group has neither shares nor quotas on some kernels; its own file tells that the feature is built in.
  facts.cpu_cfs = has("cpu", "cpu.cfs_quota_us");
  facts.cpu_realtime = has("cpu", "cpu.rt_period_us");
  facts.cpuset = facts.cgroup.has("cpuset");
  facts.pids_limit = facts.cgroup.has("pids");
  facts.blkio_weight = has("blkio", "blkio.weight") || has("blkio", "blkio.bfq.weight");
  facts.blkio_weight_device = has("blkio", "blkio.weight_device") || has("blkio", "blkio.bfq.weight_device");
  facts.blkio_read_bps = has("blkio", "blkio.throttle.read_bps_device");
  facts.blkio_write_bps = has("blkio", "blkio.throttle.write_bps_device");
  facts.blkio_read_iops = has("blkio", "blkio.throttle.read_iops_device");
  facts.blkio_write_iops = has("blkio", "blkio.throttle.write_iops_device");
}

void probe_cgroup_v2(HostFacts& facts) {
  // The root group has no limit files; any group below it shows which ones exist.
  const auto has_below = [&](const char* file) {
    std::error_code failed;
    for (std::filesystem::directory_iterator it(facts.cgroup.unified, failed), end; !failed && it != end;
         it.increment(failed))
      if (it->is_directory(failed) && has_file(it->path() / file)) return true;
    return false;
  };
  facts.memory_limit = facts.memory_reservation = facts.cgroup.has("memory");
  facts.swap_limit = facts.memory_limit && has_below("memory.swap.max");
  facts.cpu_shares = facts.cpu_cfs = facts.cgroup.has("cpu");
  facts.cpuset = facts.cgroup.has("cpuset");
  facts.pids_limit = facts.cgroup.has("pids");
  const bool io = facts.cgroup.has("io");
  facts.blkio_read_bps = facts.blkio_write_bps = facts.blkio_read_iops = facts.blkio_write_iops = io;
  facts.blkio_weight = io && (has_below("io.weight") || has_below("io.bfq.weight"));
  facts.blkio_weight_device = io && has_below("io.weight");
}

/// Asks nf_tables for its generation: any answer but an error means that it is there.
bool nftables_answers() {
  sys::Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) return false;
  struct {
    nlmsghdr header;
    nfgenmsg generic;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.generic.version = NFNETLINK_V0;
  const timeval limit{.tv_sec = 1, .tv_usec = 0};
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (::send(socket.get(), &request, sizeof request, 0) < 0) return false;
  alignas(nlmsghdr) char reply[4096];
  const ssize_t got = ::recv(socket.get(), reply, sizeof reply, 0);
  if (got < static_cast<ssize_t>(sizeof(nlmsghdr))) return false;
  return reinterpret_cast<const nlmsghdr*>(reply)->nlmsg_type == ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN);
}

void probe_security(HostFacts& facts) {
  errno = 0;
  facts.seccomp = ::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 || errno != EINVAL;
  facts.apparmor =
      small_text("/sys/module/apparmor/parameters/enabled") == "Y" && has_file("/sys/kernel/security/apparmor");
  facts.own_oom_score_adj = static_cast<int>(parse_int(small_text("/proc/self/oom_score_adj")).value_or(0));
  facts.selinux = has_file("/sys/fs/selinux/enforce");
  try {
    facts.own_capabilities = own_capabilities();
  } catch (const Error&) {
    facts.own_capabilities.clear();
  }
  for (int cpu = 0; cpu < 8192; ++cpu) {
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    if (!has_file(base)) break;
    if (has_file(base + "/thermal_throttle")) facts.thermal_throttle_paths.push_back(base + "/thermal_throttle");
  }
}

void probe_kernel_features(HostFacts& facts) {
  facts.cgroup_namespaces = has_file("/proc/self/ns/cgroup");
  facts.time_namespaces = has_file("/proc/self/ns/time");
  facts.nftables = nftables_answers();
  facts.ipv4_forwarding = small_text("/proc/sys/net/ipv4/ip_forward") == "1";
  facts.ipv6 = has_file("/proc/sys/net/ipv6") && small_text("/proc/sys/net/ipv6/conf/all/disable_ipv6") != "1";
  if (const auto systems = sys::try_read_small("/proc/filesystems"))
    for (const std::string& line : split(*systems, '\n')) facts.overlay |= line.ends_with("\toverlay");
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : std::string();
  for (const std::string& directory : split(kProgramPath, ':')) {
    const std::string path = directory + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

/// "runc version 1.1.5\ncommit: abc" and "tini version 0.19.0 - git.de40ad0".
ProgramVersion ask_version(const std::string& name) {
  ProgramVersion program;
  program.path = find_program(name);
  if (program.path.empty()) return program;
  try {
    sys::SpawnOptions options;
    options.argv = {program.path, "--version"};
    const auto output = sys::run(std::move(options), 5, 1 << 16);
    for (const std::string& line : split(output.stdout_text + "\n" + output.stderr_text, '\n')) {
      if (const auto at = line.find(" version "); at != std::string::npos && program.version.empty()) {
        const auto words = split(line.substr(at + 9), ' ');
        program.version = words[0];
        if (words.size() > 2 && words[1] == "-") program.commit = words[2].substr(words[2].find('.') + 1);
      }
      if (line.starts_with("commit: ")) program.commit = std::string(trim(std::string_view(line).substr(8)));
    }
  } catch (const Error&) {
    program.version.clear();
  }
  return program;
}

ProgramVersion find_init(const std::string& wanted) {
  if (!wanted.empty()) return ask_version(wanted);
  // tini-static first among tinis: the container need not have a C library.
  for (const char* name : {"docker-init", "tini-static", "catatonit", "tini"})
    if (ProgramVersion program = ask_version(name); !program.path.empty()) return program;
  return {};
}

/// runc understands "rro" since 1.1, crun since 1.4; mount_setattr(2) came with Linux 5.12.
bool can_bind_recursively_read_only(const HostFacts& facts) {
  if (std::pair(facts.kernel_major, facts.kernel_minor) < std::pair(5, 12)) return false;
  const auto [major, rest] = split_once(facts.runc.version, '.');
  const auto minor = parse_int(rest.substr(0, rest.find('.'))).value_or(0);
  return std::pair(parse_int(major).value_or(0), minor) >= std::pair<std::int64_t, std::int64_t>(1, 1);
}

}  // namespace

HostFacts probe_host(const ProbeOptions& options) {
  HostFacts facts;
  probe_machine(facts);
  facts.cgroup = sys::probe_cgroups();
  if (facts.cgroup.is_v2()) probe_cgroup_v2(facts);
  else probe_cgroup_v1(facts);
  probe_security(facts);
  probe_kernel_features(facts);
  facts.runc = ask_version(options.runc);
  facts.crun = ask_version(options.crun);
  facts.init = find_init(options.init);
  facts.recursive_read_only = can_bind_recursively_read_only(facts);
  return facts;
}

std::vector<std::string> host_warnings(const HostFacts& facts) {
  std::vector<std::string> warnings;
  const auto need = [&](bool there, const char* what) {
    if (!there) warnings.push_back(std::string("WARNING: No ") + what + " support");
  };
  const bool v2 = facts.cgroup.is_v2();
  need(facts.memory_limit, "memory limit");
  need(facts.swap_limit, "swap limit");
  if (!v2) need(facts.oom_kill_disable, "oom kill disable");
  need(facts.cpu_cfs, "cpu cfs quota");
  need(facts.cpu_cfs, "cpu cfs period");
  need(facts.cpu_shares, "cpu shares");
  need(facts.cpuset, "cpuset");
  need(facts.blkio_weight, v2 ? "io.weight" : "blkio weight");
  need(facts.blkio_weight_device, v2 ? "io.weight (per device)" : "blkio weight_device");
  need(facts.blkio_read_bps, v2 ? "io.max (rbps)" : "blkio throttle.read_bps_device");
  need(facts.blkio_write_bps, v2 ? "io.max (wbps)" : "blkio throttle.write_bps_device");
  need(facts.blkio_read_iops, v2 ? "io.max (riops)" : "blkio throttle.read_iops_device");
  need(facts.blkio_write_iops, v2 ? "io.max (wiops)" : "blkio throttle.write_iops_device");
  if (!facts.ipv4_forwarding) warnings.emplace_back("WARNING: IPv4 forwarding is disabled");
  return warnings;
}

}  // namespace gantry::runtime
