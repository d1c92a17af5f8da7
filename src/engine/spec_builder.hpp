#pragma once

#include <map>
#include <optional>
#include <string>

#include "engine/container.hpp"
#include "network/types.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/resources.hpp"
#include "runtime/seccomp.hpp"
#include "sys/id_mapping.hpp"
#include "sys/paths.hpp"

namespace gantry::engine {

/// Everything that a container's config.json is made of, copied, so that a lane can work on it.
struct SpecInputs {
  ContainerId id;
  std::string path;
  std::vector<std::string> args;
  model::ContainerConfig config;
  model::HostConfig host;
  std::vector<volume::MountPoint> mounts;
  std::map<std::string, sys::Path> volume_paths;  // volume name to the directory to bind
  sys::Path rootfs;
  sys::Path directory;        // the container's own, with hosts, hostname and resolv.conf
  sys::Path files_directory;  // whose files are bound: the donor's for "container:"
  bool own_files = true;      // false with the host's network and no files of ours
  std::string netns_path;     // empty: the host's
  std::string userns_path;    // of the user namespace to live in; empty: the host's
  sys::IdMapping id_mapping;
  std::vector<std::string> link_env;  // what legacy links add to the environment
  bool shares_network = false;        // it is another container's, whose sysctls are set already
  std::string hostname;
  std::int64_t pid_donor = 0;  // PidMode container:
  std::int64_t ipc_donor = 0;
  sys::Path shm_source;  // empty: a private tmpfs
  std::string init_path;
  std::string cgroups_path;
  std::vector<std::string> cdi_directories;
  std::vector<runtime::Ulimit> default_ulimits;
  std::string daemon_seccomp_profile;  // JSON text; empty: built in
  bool daemon_seccomp_unconfined = false;
  bool daemon_no_new_privileges = false;
};

/// What every process of a container gets, the first one and those of exec.
struct ProcessPolicy {
  std::vector<std::string> capabilities;
  bool no_new_privileges = false;
  std::optional<int> oom_score_adj;
  std::vector<runtime::Ulimit> ulimits;
};
/// Throws invalid_argument with Docker's texts. Reads no file.
ProcessPolicy process_policy(const model::HostConfig& host, const std::vector<runtime::Ulimit>& default_ulimits,
                             bool daemon_no_new_privileges, const runtime::HostFacts& facts);

/// The only driver of device requests is CDI. Throws internal with Docker's text for the others.
void require_device_drivers(const model::HostConfig& host);

/// The text of config.json. Resolves users in the container's own files and devices on the host. Throws Error with
/// Docker's texts. Blocks: call it in a lane.
std::string build_spec_blocking(const SpecInputs& inputs, const runtime::HostFacts& facts,
                                runtime::SeccompCache& seccomp);

}  // namespace gantry::engine
