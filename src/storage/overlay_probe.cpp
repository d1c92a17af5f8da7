#include "storage/overlay_probe.hpp"

#include <cerrno>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "storage/tree.hpp"
#include "sys/mount.hpp"

namespace gantry::storage {
namespace {

/// A scratch directory that goes when it is left.
class Scratch {
 public:
  explicit Scratch(const sys::Path& parent) : path_(parent / ("probe-" + random_id().substr(0, 16))) {
    for (const char* name : {"lower/gone", "upper", "work", "merged"}) sys::make_directories(path_ / name, 0700);
  }
  ~Scratch() {
    try {
      sys::remove_tree(path_);
    } catch (const Error&) {
      return;  // recover() empties tmp/
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  sys::Path operator/(const char* name) const { return path_ / name; }

 private:
  sys::Path path_;
};

bool has_d_type(const sys::Path& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), ::closedir);
  if (!stream) throw Error::from_errno(errno, fmt::format("read directory {}", directory.string()));
  while (const dirent* entry = ::readdir(stream.get()))
    if (entry->d_type != DT_UNKNOWN) return true;
  return false;
}

/// Deletes a lower directory and makes it anew: the upper directory must say so in the way that a layer does.
bool leaves_readable_diff(int merged, const sys::Path& upper) {
  if (::unlinkat(merged, "gone", AT_REMOVEDIR) != 0) throw Error::from_errno(errno, "delete in the test overlay");
  const sys::Fd above = sys::open_file(upper, O_RDONLY | O_DIRECTORY);
  const auto whiteout = find_stat(above.get(), "gone");
  if (!whiteout || !is_whiteout(*whiteout)) return false;
  if (::mkdirat(merged, "gone", 0700) != 0) throw Error::from_errno(errno, "write to the test overlay");
  return is_opaque(open_subdirectory(above.get(), "gone").get());
}

}  // namespace

std::string filesystem_name(const sys::Path& path) {
  struct statfs st{};
  if (::statfs(path.c_str(), &st) != 0) throw Error::from_errno(errno, fmt::format("statfs {}", path.string()));
  switch (static_cast<unsigned long>(st.f_type)) {
    case EXT4_SUPER_MAGIC: return "extfs";
    case XFS_SUPER_MAGIC: return "xfs";
    case BTRFS_SUPER_MAGIC: return "btrfs";
    case TMPFS_MAGIC: return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC: return "overlayfs";
    case F2FS_SUPER_MAGIC: return "f2fs";
    case NFS_SUPER_MAGIC: return "nfs";
    case FUSE_SUPER_MAGIC: return "fuse";
    case 0x2fc12fc1: return "zfs";
    default: return "<unknown>";
  }
}

StorageFacts probe_storage(const sys::Paths& paths) {
  StorageFacts facts;
  facts.backing_filesystem = filesystem_name(paths.data_root);
  auto refuse = [&](std::string_view why) {
    throw Error(Errc::unavailable,
                fmt::format("containers cannot be stored in {} ({}): {}; put --data-root on ext4, or on xfs made with "
                            "ftype=1, or on btrfs",
                            paths.data_root.string(), facts.backing_filesystem, why));
  };
  sys::make_directories(paths.tmp(), 0700);
  const Scratch scratch(paths.tmp());
  facts.supports_d_type = has_d_type(scratch / "lower");
  if (!facts.supports_d_type) refuse("the file system does not tell the type of directory entries (d_type)");
  try {
    facts.layers_by_fd = sys::overlay_takes_descriptors();
    sys::OverlaySpec spec;
    spec.lower = {scratch / "lower"};
    spec.upper = scratch / "upper";
    spec.work = scratch / "work";
    const sys::Fd merged = sys::open_overlay(spec, scratch / "merged");
    facts.native_overlay_diff = leaves_readable_diff(merged.get(), spec.upper);
  } catch (const Error& e) {
    if (e.sys_errno() == ENOSPC) throw;  // says nothing about the file system
    refuse(e.message());
  }
  if (!facts.native_overlay_diff) refuse("overlayfs does not record deletions there as layers do");
  return facts;
}

}  // namespace gantry::storage
