#pragma once

#include <string>
#include <string_view>
#include <vector>

/// The mounts that this process sees. Source of the format: proc_pid_mountinfo(5).
namespace gantry::sys {

struct MountInfo {
  int id = 0;
  int parent = 0;
  std::string root;         // what part of the file system is mounted
  std::string mount_point;  // with the escapes resolved
  std::string options;      // per mount: "rw,nosuid"
  bool shared = false;      // has a peer group
  bool slave = false;       // receives from one
  std::string type;         // "ext4"
  std::string source;
  std::string super_options;  // per file system
};

/// /proc/self/mountinfo, in its order (a later mount at the same point hides an earlier one). Throws internal.
std::vector<MountInfo> list_mounts();
std::vector<MountInfo> parse_mountinfo(std::string_view text);

/// Something is mounted right at `path` (absolute and clean).
bool is_mount_point(const std::vector<MountInfo>& mounts, std::string_view path);
/// The mount that `path` (absolute, clean, links resolved) lies on; nullptr only for an empty list.
const MountInfo* find_mount_of(const std::vector<MountInfo>& mounts, std::string_view path);

}  // namespace gantry::sys
