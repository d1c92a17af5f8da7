#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sys/cgroup.hpp"

/// What this machine and the daemon's own surroundings can do. Looked at once, when the daemon starts; `/info`,
/// validation and rendering read the plain struct afterwards and never the system.
namespace gantry::runtime {

/// A program that we call, as its own `--version` tells. Empty texts: it is not there.
struct ProgramVersion {
  std::string path;     // resolved
  std::string version;  // "1.1.5+ds1"
  std::string commit;
};

struct HostFacts {
  // The machine.
  std::string kernel_version;  // uname -r
  int kernel_major = 0;
  int kernel_minor = 0;
  std::string architecture;      // uname -m: "x86_64"
  std::string goarch;            // Go's word, as image platforms use it: "amd64"
  std::string operating_system;  // os-release PRETTY_NAME; " (containerized)" is never added
  std::string os_version;        // os-release VERSION_ID
  std::string hostname;
  int cpus = 1;  // that this process may use
  std::int64_t memory_bytes = 0;
  std::string cpus_online;  // "0-3": what CpusetCpus may name
  std::string mems_online;

  // Control groups.
  sys::CgroupLayout cgroup;
  bool memory_limit = false;
  bool swap_limit = false;
  bool memory_reservation = false;
  bool memory_swappiness = false;
  bool oom_kill_disable = false;
  bool cpu_shares = false;
  bool cpu_cfs = false;  // period and quota
  bool cpu_realtime = false;
  bool cpuset = false;
  bool pids_limit = false;
  bool blkio_weight = false;
  bool blkio_weight_device = false;
  bool blkio_read_bps = false;
  bool blkio_write_bps = false;
  bool blkio_read_iops = false;
  bool blkio_write_iops = false;
  bool cgroup_namespaces = false;
  bool time_namespaces = false;

  // Security.
  bool seccomp = false;
  bool apparmor = false;
  bool selinux = false;
  int own_oom_score_adj = 0;               // what a container would inherit
  std::set<std::string> own_capabilities;  // "CAP_CHOWN" …: our bounding and permitted set; no container gets more
  bool recursive_read_only = false;        // mount_setattr(2), and the runtime knows "rro"
  std::vector<std::string> thermal_throttle_paths;

  // The rest.
  bool systemd = false;  // it is the init of this machine
  bool overlay = false;
  bool nftables = false;
  bool ipv4_forwarding = false;
  bool ipv6 = false;

  ProgramVersion runc;
  ProgramVersion crun;
  ProgramVersion init;  // tini or catatonit, for --init
};

struct ProbeOptions {
  std::string runc = "runc";  // names are looked up in PATH
  std::string crun = "crun";
  std::string init;  // empty: docker-init, tini-static, tini, catatonit, in this order
};

/// Looks at the machine. Blocks (about 50 ms: it runs `--version` of the programs). Never throws: what cannot be
/// read counts as absent.
HostFacts probe_host(const ProbeOptions& options = {});

/// "WARNING: No swap limit support" …: the lines about this machine that `/info` carries, in Docker's order.
std::vector<std::string> host_warnings(const HostFacts& facts);

}  // namespace gantry::runtime
