#include <cerrno>
#include <map>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "storage/file_content.hpp"
#include "storage/root_access.hpp"
#include "storage/tar_reader.hpp"
#include "storage/tree.hpp"
#include "storage/tree_writer.hpp"

namespace gantry::storage {
namespace {

Metadata metadata_of(const struct stat& st, std::vector<sys::Xattr> attributes) {
  return {st.st_mode & 07777, st.st_uid, st.st_gid, st.st_mtim, std::move(attributes)};
}

class Copier {
 public:
  explicit Copier(int destination) : writer_(destination, UnpackOptions{}) {}

  void copy_children(int directory, const std::string& prefix, dev_t device, int depth) {
    if (depth > kDeepestWalk) throw Error(Errc::invalid_argument, prefix + " is nested too deeply");
    for (const std::string& name : list_names(directory)) {
      const auto st = find_stat(directory, name.c_str());
      if (st) copy_entry(directory, name, *st, prefix + name, device, depth);
    }
  }
  void finish() { writer_.finish(); }

 private:
  void copy_entry(int directory, const std::string& name, const struct stat& st, const std::string& path, dev_t device,
                  int depth) {
    if (st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
      const auto [first, inserted] = first_names_.try_emplace({st.st_dev, st.st_ino}, path);
      if (!inserted) return writer_.make_hardlink(path, first->second);
    }
    const Metadata metadata = metadata_of(st, sys::list_xattrs(directory, name));
    switch (st.st_mode & S_IFMT) {
      case S_IFDIR: {
        const sys::Fd child = open_subdirectory(directory, name.c_str());
        writer_.make_directory(path, metadata);
        if (get_stat(child.get()).st_dev == device) copy_children(child.get(), path + "/", device, depth + 1);
        return;
      }
      case S_IFREG: {
        const sys::Fd file(::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
        if (!file) throw Error::from_errno(errno, fmt::format("open {}", shown_name(path)));
        return writer_.make_file(path, metadata, [&](int to) { copy_content(file.get(), to); });
      }
      case S_IFLNK: return writer_.make_symlink(path, read_link(directory, name.c_str()), metadata);
      case S_IFCHR:
      case S_IFBLK:
      case S_IFIFO: return writer_.make_node(path, st.st_mode & S_IFMT, st.st_rdev, metadata);
      default: return;  // a socket
    }
  }

  TreeWriter writer_;
  std::map<std::pair<dev_t, ino_t>, std::string> first_names_;  // of files with several links
};

}  // namespace

bool copy_directory_preserving(int root, const std::string& path, int destination) {
  sys::Fd source;
  try {
    source = sys::open_in_root(root, path, O_RDONLY | O_DIRECTORY);
  } catch (const Error& e) {
    if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR || e.sys_errno() == ELOOP) return false;
    throw;
  }
  const struct stat st = get_stat(source.get());
  Copier copier(destination);
  copier.copy_children(source.get(), "", st.st_dev, 0);
  copier.finish();
  const timespec times[2] = {{0, UTIME_NOW}, st.st_mtim};
  if (::fchown(destination, st.st_uid, st.st_gid) != 0 || ::fchmod(destination, st.st_mode & 07777) != 0 ||
      ::futimens(destination, times) != 0)
    throw Error::from_errno(errno, fmt::format("copy attributes of {}", shown_name(path)));
  for (const sys::Xattr& attribute : sys::list_xattrs(source.get()))
    if (is_allowed_xattr(attribute.name)) sys::set_xattr(destination, attribute);
  return true;
}

}  // namespace gantry::storage
