#include "engine/container_tree.hpp"

#include <cerrno>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "storage/root_access.hpp"
#include "sys/mount.hpp"

namespace gantry::engine {
namespace {

/// A detached mount, and where it belongs.
struct Piece {
  sys::Fd mount;
  std::string destination;
  bool read_only = false;
  bool recursive = false;
};

bool is_directory(int fd) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) throw Error::from_errno(errno, "stat");
  return S_ISDIR(st.st_mode);
}

void enter_mount_namespace(int fd) {
  if (::setns(fd, CLONE_NEWNS) != 0) throw Error::from_errno(errno, "enter mount namespace");
}

sys::Fd own_mount_namespace() { return sys::open_file("/proc/thread-self/ns/mnt", O_RDONLY); }

bool is_gone(const Error& e) { return e.sys_errno() == ENOENT || e.sys_errno() == ESRCH || e.sys_errno() == ENOTDIR; }

/// The directory of the process in /proc. It stands for this process only: once that has ended nothing opens in it,
/// whoever gets the number. nullopt if the process is not the container's.
std::optional<sys::Fd> open_process(const TreePlan& plan) {
  sys::Fd process = sys::open_file(fmt::format("/proc/{}", plan.init_pid), O_PATH | O_DIRECTORY);
  const sys::Fd groups(::openat(process.get(), "cgroup", O_RDONLY | O_CLOEXEC));
  if (!groups || sys::read_all(groups.get(), 1 << 20).find(plan.container_id) == std::string::npos) return std::nullopt;
  return process;
}

/// Clones what the runtime mounted as tmpfs. A file system that is mounted in the container's namespace can be cloned
/// only from inside it; the paths are resolved in the container's root and what is there is checked.
/// Requires a thread of its own, with its own root and working directory.
void clone_tmpfs(const TreePlan& plan, std::vector<Piece>& pieces) {
  const auto process = open_process(plan);
  if (!process) return;
  const sys::Fd inside(::openat(process->get(), "ns/mnt", O_RDONLY | O_CLOEXEC));
  const sys::Fd root(::openat(process->get(), "root", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!inside || !root) return;
  const sys::Fd home = own_mount_namespace();
  enter_mount_namespace(inside.get());
  struct Return {
    int home;
    ~Return() { (void)::setns(home, CLONE_NEWNS); }
  } back{home.get()};
  for (const volume::MountPoint& mount : plan.mounts) {
    if (mount.type != volume::MountType::tmpfs) continue;
    const sys::Fd found = sys::open_in_root(root.get(), mount.destination, O_PATH | O_DIRECTORY);
    struct statfs fs{};
    if (::fstatfs(found.get(), &fs) != 0 || fs.f_type != TMPFS_MAGIC) continue;
    pieces.push_back({sys::clone_mount(found.get(), false), mount.destination, !mount.rw, false});
  }
}

void clone_source(const volume::MountPoint& mount, std::vector<Piece>& pieces) {
  sys::Fd source = sys::open_file(mount.source, O_PATH);
  if (!mount.subpath.empty()) source = sys::open_in_root(source.get(), mount.subpath, O_PATH);
  pieces.push_back({sys::clone_mount(source.get(), !mount.non_recursive), mount.destination, !mount.rw,
                    !mount.non_recursive && !mount.read_only_non_recursive});
}

std::vector<Piece> collect(const TreePlan& plan) {
  std::vector<Piece> pieces;
  for (const TreePlan::File& file : plan.files) {
    try {
      pieces.push_back({sys::clone_mount(sys::open_file(file.source, O_PATH).get(), false), file.destination,
                        plan.read_only_root, false});
    } catch (const Error& e) {
      if (!is_gone(e)) throw;
    }
  }
  if (plan.init_pid != 0) {
    try {
      clone_tmpfs(plan, pieces);
    } catch (const Error& e) {
      if (!is_gone(e)) throw;  // it has just ended, and its tmpfs mounts with it
    }
  }
  for (const volume::MountPoint& mount : plan.mounts)
    if (mount.type != volume::MountType::tmpfs && (mount.type != volume::MountType::image || plan.init_pid != 0))
      clone_source(mount, pieces);
  for (const Piece& piece : pieces)
    // Unmounting the original on the host reaches the clone; nothing that we mount reaches the host.
    sys::set_mount_attributes(piece.mount.get(), 0, 0, MS_SLAVE, true);
  return pieces;
}

void attach(const Piece& piece, int root, const sys::IdMapping& ids) {
  if (is_directory(piece.mount.get()))
    storage::make_directory_in_root(root, piece.destination, ids.host_uid(0), ids.host_gid(0));
  else storage::make_file_in_root(root, piece.destination);
  const sys::Fd target = sys::open_in_root(root, piece.destination, O_PATH);
  sys::attach_mount(piece.mount.get(), target.get());
  if (piece.read_only) sys::set_mount_attributes(piece.mount.get(), MOUNT_ATTR_RDONLY, 0, 0, piece.recursive);
}

/// Leaves only the tree in this thread's mount namespace, so that no mount of the host is kept busy by it. Where the
/// root is the kernel's initial one, which cannot be exchanged (pivot_root(2)), the rest stays until the end.
void drop_other_mounts(int root) {
  if (::fchdir(root) == 0 && ::syscall(SYS_pivot_root, ".", ".") == 0) (void)::umount2(".", MNT_DETACH);
}

/// Requires a thread that ends afterwards: its root is the container's.
std::pair<sys::Fd, sys::Fd> build(const TreePlan& plan) {
  if (::unshare(CLONE_FS) != 0) throw Error::from_errno(errno, "unshare");
  const sys::Fd place = sys::open_file(plan.rootfs, O_PATH | O_DIRECTORY);
  sys::Fd root = sys::clone_mount(place.get(), false);
  const std::vector<Piece> pieces = collect(plan);
  if (::unshare(CLONE_NEWNS) != 0) throw Error::from_errno(errno, "unshare mount namespace");
  sys::mount_classic("none", "/", "", MS_REC | MS_PRIVATE, "");
  sys::Fd mount_namespace = own_mount_namespace();
  sys::set_mount_attributes(root.get(), 0, 0, MS_PRIVATE, false);
  sys::attach_mount(root.get(), plan.anchor);
  for (const Piece& piece : pieces)
    with_context(fmt::format("mount {}", piece.destination), [&] { attach(piece, root.get(), plan.ids); });
  if (plan.read_only_root) sys::set_mount_attributes(root.get(), MOUNT_ATTR_RDONLY, 0, 0, false);
  drop_other_mounts(root.get());
  return {std::move(root), std::move(mount_namespace)};
}

std::uint64_t mount_id(int fd) {
  struct statx st{};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) != 0) throw Error::from_errno(errno, "stat");
  return st.stx_mnt_id;
}

}  // namespace

ContainerTree ContainerTree::open_blocking(const TreePlan& plan) {
  volume::create_bind_sources_blocking(plan.mounts);
  std::pair<sys::Fd, sys::Fd> built;
  std::exception_ptr failure;
  std::thread([&] {
    try {
      built = build(plan);
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
  return {std::move(built.first), std::move(built.second)};
}

std::string read_only_reason(int root, int directory) {
  struct statvfs fs{};
  if (::fstatvfs(directory, &fs) != 0) throw Error::from_errno(errno, "stat file system");
  if ((fs.f_flag & ST_RDONLY) == 0) return "";
  return mount_id(directory) == mount_id(root) ? "container rootfs is marked read-only"
                                               : "mounted volume is marked read-only";
}

}  // namespace gantry::engine
