#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// A process that gantry-shim itself starts inside a running container, with everything looked up and decided: the shim
/// opens no file of the container to learn about it. See docs/shim-protocol.md, "Execs".
namespace gantry::protocol {

struct ResourceLimit {
  std::uint32_t resource = 0;  // RLIMIT_*
  std::uint64_t soft = 0;      // ~0: unlimited
  std::uint64_t hard = 0;
  friend bool operator==(const ResourceLimit&, const ResourceLimit&) = default;
};

/// Capability sets: bit n stands for capability n of linux/capability.h.
struct Capabilities {
  std::uint64_t bounding = 0;
  std::uint64_t permitted = 0;
  std::uint64_t effective = 0;
  std::uint64_t inheritable = 0;
  std::uint64_t ambient = 0;
  friend bool operator==(const Capabilities&, const Capabilities&) = default;
};

struct NativeProcess {
  std::vector<std::string> args;  // at least one; the first is looked up in the PATH of `env`, inside the container
  std::vector<std::string> env;   // "NAME=value", complete
  std::string directory = "/";    // absolute, inside the container
  std::uint32_t uid = 0;          // as the container's user namespace counts
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;
  std::uint32_t umask = 022;
  Capabilities capabilities;
  bool no_new_privileges = false;
  std::vector<ResourceLimit> limits;
  std::optional<int> oom_score_adj;
  std::string filter;              // struct sock_filter[] of the seccomp filter; empty: none
  std::uint32_t filter_flags = 0;  // SECCOMP_FILTER_FLAG_*
  std::string apparmor_profile;    // empty: none
  std::string selinux_label;
  std::vector<std::string> cgroups_v1;  // the container's directory in each version 1 hierarchy
  std::string cgroup_v2;                // in version 2, if that is mounted …
  std::string cgroup_v2_mount;          // … here
  friend bool operator==(const NativeProcess&, const NativeProcess&) = default;
};

/// Throws invalid_argument for a text with a NUL in it.
std::string encode_native(const NativeProcess& process);
/// Throws invalid_argument where something is missing or out of its range.
NativeProcess decode_native(std::string_view bytes);

}  // namespace gantry::protocol
