#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/host_facts.hpp"
#include "runtime/resources.hpp"

/// Turns plain values into the JSON that an OCI runtime reads (runtime-spec 1.0; checked with runc 1.1.5).
/// Pure functions: no file is opened and no name is resolved here, so the text is the same on every call.
namespace gantry::runtime {

/// One mount of the container, options spelled as mount(8) spells them ("ro", "nosuid", "rbind", "rprivate").
struct Mount {
  std::string type;  // "bind", "tmpfs", "proc" …
  std::string source;
  std::string destination;  // absolute and lexically clean
  std::vector<std::string> options;
};

struct BindOptions {
  bool read_only = false;
  bool recursive_read_only = true;  // below the mounts that come with the source too, where the kernel can
  bool non_recursive = false;       // "bind" instead of "rbind"
  std::string propagation{};        // empty: rprivate
};
/// A bind mount as Docker writes it. `facts.recursive_read_only` says whether "rro" may be used.
Mount bind_mount(std::string source, std::string destination, const BindOptions& options, const HostFacts& facts);
/// A tmpfs at `destination`; `options` are added to Docker's noexec,nosuid,nodev and win over them.
Mount tmpfs_mount(std::string destination, const std::vector<std::string>& options);

/// Which namespace of one kind the container lives in.
struct NamespaceChoice {
  enum class Kind { fresh, host, join };
  Kind kind = Kind::fresh;
  std::string path;  // join: "/proc/<pid>/ns/net" or a bind-mounted file

  static NamespaceChoice fresh() { return {}; }
  static NamespaceChoice host() { return {Kind::host, {}}; }
  static NamespaceChoice join(std::string path) { return {Kind::join, std::move(path)}; }
};

struct IdMapping {
  std::uint32_t container_id = 0;
  std::uint32_t host_id = 0;
  std::uint32_t size = 0;
};

/// A device node to make inside the container.
struct Device {
  std::string path;  // inside the container
  char type = 'c';   // 'c', 'b' or 'p'
  std::int64_t major = 0;
  std::int64_t minor = 0;
  std::uint32_t file_mode = 0666;  // permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

/// One line of the device cgroup. Absent numbers stand for "all".
struct DeviceRule {
  bool allow = true;
  char type = 'a';  // 'a', 'b' or 'c'
  std::optional<std::int64_t> major{};
  std::optional<std::int64_t> minor{};
  std::string access = "rwm";
};

/// Who a process runs as, already looked up in the container's own files (users.hpp).
struct ProcessUser {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> additional_gids;
};

struct ConsoleSize {
  std::uint32_t height = 0;
  std::uint32_t width = 0;
};

/// A program that the runtime calls at a point of the container's life (runtime-spec, "POSIX-platform Hooks").
struct Hook {
  std::string point;  // "createRuntime", "prestart" …
  std::string path;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::int64_t timeout = 0;  // seconds; 0: none
};

/// Everything that a container's first process needs. Paths are absolute; nothing is left to be looked up.
struct ContainerSpec {
  std::string id;

  // The process.
  std::vector<std::string> args;      // without the init; must not be empty
  std::vector<std::string> env;       // the user's; the default ones (PATH, HOSTNAME, TERM) are put in front
  std::vector<std::string> link_env;  // from legacy links; between the default ones and the user's
  std::string cwd = "/";
  ProcessUser user;
  bool terminal = false;
  std::optional<ConsoleSize> console_size;
  std::vector<std::string> capabilities;  // "CAP_CHOWN" …: bounding, permitted and effective (capabilities.hpp)
  bool no_new_privileges = false;
  std::optional<int> oom_score_adj;
  std::vector<Ulimit> ulimits;
  std::string apparmor_profile;  // empty: none
  std::string selinux_label;
  std::string init_path;  // tini on the host: bound to /sbin/docker-init and put before args. Empty: no init

  // What it sees.
  std::string hostname;
  std::string domainname;
  std::string rootfs;
  bool readonly_rootfs = false;
  std::string rootfs_propagation;  // empty: the runtime's default (rprivate)
  std::vector<Mount> mounts;       // the user's and the managed ones; a default mount with the same target gives way
  std::optional<std::vector<std::string>> masked_paths;    // nullopt: Docker's defaults
  std::optional<std::vector<std::string>> readonly_paths;  // nullopt: Docker's defaults
  std::int64_t shm_size = 64 << 20;                        // bytes, of a private /dev/shm
  std::string shm_source;                                  // a directory to bind at /dev/shm instead of a private tmpfs
  bool without_shm = false;                                // IPC mode "none"

  // Namespaces; the mount namespace is always a new one.
  NamespaceChoice net;
  bool shares_network = false;  // `net` belongs to another container: its sysctls are not ours to set
  NamespaceChoice pid;
  NamespaceChoice ipc;
  NamespaceChoice uts;
  NamespaceChoice cgroup = NamespaceChoice::host();
  NamespaceChoice user_namespace = NamespaceChoice::host();
  std::vector<IdMapping> uid_mappings;
  std::vector<IdMapping> gid_mappings;

  // Confinement and limits.
  bool privileged = false;                     // all devices allowed, nothing masked, /sys and cgroups writable
  bool writable_cgroups = false;               // /sys/fs/cgroup writable without being privileged
  std::shared_ptr<const std::string> seccomp;  // the OCI object as text (seccomp.hpp); null: no filter
  std::vector<Device> devices;
  std::vector<DeviceRule> device_rules;  // added after the default ones
  Resources resources;
  std::map<std::string, std::string> sysctls;  // the user's; they win over the default ones
  std::string cgroups_path;                    // "/docker/<id>", or "system.slice:docker:<id>" for systemd
  std::map<std::string, std::string> annotations;
  std::vector<Hook> hooks;
};

/// The container's config.json. Requires args, rootfs and cgroups_path.
std::string render_oci_config(const ContainerSpec& spec, const HostFacts& facts);

/// The limits alone, as `runc update --resources` reads them.
std::string render_oci_resources(const Resources& resources);

/// A further process in a running container.
struct ProcessSpec {
  std::vector<std::string> args;
  std::vector<std::string> env;  // complete: see `exec_env`
  std::string cwd = "/";
  ProcessUser user;
  bool terminal = false;
  std::optional<ConsoleSize> console_size;
  std::vector<std::string> capabilities;
  bool no_new_privileges = false;
  std::optional<int> oom_score_adj;
  std::vector<Ulimit> ulimits;
  std::string apparmor_profile;
  std::string selinux_label;
};

/// The process.json that `runc exec --process` reads.
std::string render_oci_process(const ProcessSpec& process);

/// PATH, HOSTNAME and TERM (with a terminal), then the link variables, then the user's. A later one with the same name
/// replaces the value in place; an entry without "=" removes the variable. Docker's order.
std::vector<std::string> render_env(const std::string& hostname, bool terminal,
                                    const std::vector<std::string>& link_env, const std::vector<std::string>& env);
/// `base` with `changes` applied in the same manner (exec: the container's environment and the request's).
std::vector<std::string> merge_env(std::vector<std::string> base, const std::vector<std::string>& changes);

/// What Docker masks and makes read-only unless told otherwise; per-processor entries only where they exist.
std::vector<std::string> default_masked_paths(const HostFacts& facts);
std::vector<std::string> default_readonly_paths();

}  // namespace gantry::runtime
