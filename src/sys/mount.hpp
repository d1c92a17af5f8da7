#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/file.hpp"

/// Mounts, by descriptor where the kernel allows it (fsopen, fsmount, open_tree, move_mount: Linux 5.2; mount_setattr:
/// 5.12), so that nothing is resolved twice. All of it blocks, needs CAP_SYS_ADMIN, and throws Error with the kernel's
/// own reason where there is one.
namespace gantry::sys {

/// One line of /proc/self/mountinfo. Source: proc_pid_mountinfo(5). Octal escapes are decoded.
struct MountInfo {
  std::uint64_t id = 0;
  std::uint64_t parent = 0;
  std::string root;  // the directory of its file system that is mounted
  Path mount_point;
  std::string options;   // of the mount
  std::string optional;  // "shared:12 master:3", or empty
  std::string filesystem;
  std::string source;
  std::string super_options;
};

/// The mounts of the calling thread's namespace, in the order of the kernel; with `below`, only those at or below that
/// path.
std::vector<MountInfo> list_mounts(const std::optional<Path>& below = std::nullopt);
/// True if something is mounted at `path` itself. False if `path` does not exist. Source: statx(2), MOUNT_ROOT.
bool is_mount_point(const Path& path);

struct OverlaySpec {
  std::vector<Path> lower;  // topmost first, at least one; the kernel takes up to 500
  Path upper;               // empty: read-only, and then at least two lower directories
  Path work;
  /// A user namespace in whose ids the lower directories' owners are to be read; -1: as they are. The upper directory
  /// keeps its own. Needs Linux 6.15: layers that are mounted nowhere.
  int lower_ids = -1;
  /// Nothing that is written is put on stable storage, whoever asks for it, so what a crash of the machine leaves is
  /// worthless. Leaves "incompat" in the work directory, which cannot be used for another mount. Linux 5.10.
  bool unsafe_and_fast = false;
  /// Give the options to mount(2) as kernels before 6.13 need it. Chosen by itself; set in tests.
  bool classic = false;
};

/// Mounts an overlay at `target`.
///
/// Options: `redirect_dir=nofollow,metacopy=off,index=off`, whatever the kernel's defaults are, so that the upper
/// directory is a self-contained diff which commit and `docker diff` can read, and so that extended attributes in
/// an image can never redirect a lookup.
void mount_overlay(const OverlaySpec& spec, const Path& target);
/// The root of an overlay that is attached nowhere and goes away with the descriptor. `scratch` is an empty directory
/// that kernels before 6.13 need to mount it on for a moment.
Fd open_overlay(const OverlaySpec& spec, const Path& scratch);
/// True if the kernel takes overlay directories one by one as descriptors (Linux 6.13).
bool overlay_takes_descriptors();

/// A file system that is attached nowhere yet: fsopen, fsconfig with "key=value" or "flag", fsmount.
/// `attributes` are MOUNT_ATTR_ flags.
Fd make_mount(const std::string& filesystem, const std::vector<std::string>& options, std::uint64_t attributes = 0);
/// A detached copy of the mount at what is open as `source`, with everything below it if `recursive`.
Fd clone_mount(int source, bool recursive);
/// A detached clone of the mount at what is open as `source`, in which files belong to who their owners' numbers are in
/// the user namespace: what is 0 on disk is the namespace's root. Source: mount_setattr(2), MOUNT_ATTR_IDMAP.
Fd clone_mapped_mount(int source, int user_namespace);
/// Sets and clears MOUNT_ATTR_ flags; `propagation` is MS_PRIVATE and the like, or 0.
void set_mount_attributes(int mount, std::uint64_t set, std::uint64_t clear, std::uint64_t propagation, bool recursive);
/// Attaches a detached mount at what is open as `target`. Both must be directories, or neither.
void attach_mount(int mount, int target);
void attach_mount(int mount, const Path& target);

/// mount(2), for what has no descriptor form.
void mount_classic(const std::string& source, const Path& target, const std::string& filesystem, unsigned long flags,
                   const std::string& data);

enum class Unmount {
  now,   // throws conflict while something uses it
  lazy,  // detached at once, gone when its last user is
};
/// False if nothing is mounted there. Never follows a symbolic link at the end of `path`.
bool unmount(const Path& path, Unmount how);
/// Lazily unmounts everything at or below `path`, the deepest first. Returns how many.
std::size_t unmount_all(const Path& path);

/// A mount that lasts as long as this object; unmounted lazily.
class TemporaryMount {
 public:
  explicit TemporaryMount(Path mounted_at) : path_(std::move(mounted_at)) {}
  ~TemporaryMount();
  TemporaryMount(const TemporaryMount&) = delete;
  TemporaryMount& operator=(const TemporaryMount&) = delete;
  const Path& path() const noexcept { return path_; }

 private:
  Path path_;
};

}  // namespace gantry::sys
