#include "storage/pack.hpp"

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "storage/tar_writer.hpp"
#include "storage/tree.hpp"
#include "storage/unpack.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

std::uint64_t mount_id(int fd) {
  struct statx st{};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &st) != 0)
    throw Error::from_errno(errno, "stat");
  return st.stx_mnt_id;
}

std::vector<sys::Xattr> allowed(std::vector<sys::Xattr> attributes) {
  std::erase_if(attributes, [](const sys::Xattr& a) { return !is_allowed_xattr(a.name); });
  return attributes;
}

class Packer {
 public:
  Packer(const PackOptions& options, const ByteSink& sink) : options_(options), out_(sink) {}

  void run(int root) {
    const struct stat st = get_stat(root);
    if (S_ISDIR(st.st_mode)) {
      mount_ = mount_id(root);
      if (!options_.prefix.empty()) write_directory(root, st, options_.prefix + "/");
      visit_children(root, options_.prefix.empty() ? "" : options_.prefix + "/", 0);
    } else {
      visit_single(root, st);
    }
    out_.finish();
  }

 private:
  TarEntry describe(const struct stat& st, std::string name) const {
    TarEntry entry;
    entry.name = std::move(name);
    entry.mode = st.st_mode & 07777;
    entry.uid = options_.ids.container_uid(st.st_uid);
    entry.gid = options_.ids.container_gid(st.st_gid);
    entry.mtime = {st.st_mtim.tv_sec, 0};
    return entry;
  }

  void visit_children(int directory, const std::string& prefix, int depth) {
    if (depth > kDeepestWalk)
      throw Error(Errc::invalid_argument, fmt::format("{} is nested too deeply", shown_name(prefix)));
    for (const std::string& name : list_names(directory)) {
      try {
        visit(directory, name, prefix + name, depth);
      } catch (const Error& e) {
        if (e.sys_errno() != ENOENT) throw;  // removed while we look
      }
    }
  }

  void visit(int directory, const std::string& name, const std::string& shown, int depth) {
    const auto st = find_stat(directory, name.c_str());
    if (!st) return;
    if (options_.mode == PackMode::layer && is_whiteout(*st)) return write_whiteout(*st, shown);
    if (S_ISDIR(st->st_mode)) {
      const sys::Fd child = open_subdirectory(directory, name.c_str());
      write_directory(child.get(), *st, shown + "/");
      if (options_.follow_mounts || mount_id(child.get()) == mount_)
        visit_children(child.get(), shown + "/", depth + 1);
      return;
    }
    if (write_as_hardlink(*st, shown)) return;
    if (S_ISREG(st->st_mode)) {
      sys::Fd file(::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
      if (!file) throw Error::from_errno(errno, fmt::format("open {}", shown_name(shown)));
      return write_file(file.get(), shown);
    }
    std::string link = S_ISLNK(st->st_mode) ? read_link(directory, name.c_str()) : "";
    write_special(*st, shown, std::move(link), allowed(sys::list_xattrs(directory, name)));
  }

  /// The root is not a directory: one entry with the prefix as its name. It may be an O_PATH descriptor.
  void visit_single(int fd, const struct stat& st) {
    if (S_ISREG(st.st_mode)) {
      const sys::Fd file(::open(sys::fd_path(fd).c_str(), O_RDONLY | O_NOCTTY | O_CLOEXEC));
      if (!file) throw Error::from_errno(errno, fmt::format("open {}", shown_name(options_.prefix)));
      return write_file(file.get(), options_.prefix);
    }
    write_special(st, options_.prefix, S_ISLNK(st.st_mode) ? read_link(fd, "") : "", {});
  }

  void write_directory(int fd, const struct stat& st, const std::string& name) {
    TarEntry entry = describe(st, name);
    entry.type = TarType::directory;
    entry.xattrs = allowed(sys::list_xattrs(fd));
    out_.write_header(entry);
    if (options_.mode != PackMode::layer || !is_opaque(fd)) return;
    TarEntry marker = describe(st, name + std::string(kOpaqueMarker));
    marker.mode = 0;
    out_.write_header(marker);
  }

  void write_whiteout(const struct stat& st, const std::string& name) {
    const auto [directory, base] = split_path(name);
    TarEntry entry = describe(st, (directory.empty() ? "" : directory + "/") + std::string(kWhiteoutPrefix) + base);
    entry.mode = 0;
    out_.write_header(entry);
  }

  bool write_as_hardlink(const struct stat& st, const std::string& name) {
    if (st.st_nlink < 2) return false;
    const auto [first, inserted] = first_names_.try_emplace({st.st_dev, st.st_ino}, name);
    if (inserted) return false;
    TarEntry entry = describe(st, name);
    entry.type = TarType::hardlink;
    entry.link = first->second;
    out_.write_header(entry);
    return true;
  }

  void write_special(const struct stat& st, const std::string& name, std::string link,
                     std::vector<sys::Xattr> attributes) {
    TarEntry entry = describe(st, name);
    entry.xattrs = std::move(attributes);
    entry.device = st.st_rdev;
    switch (st.st_mode & S_IFMT) {
      case S_IFLNK: entry.type = TarType::symlink; break;
      case S_IFCHR: entry.type = TarType::character_device; break;
      case S_IFBLK: entry.type = TarType::block_device; break;
      case S_IFIFO: entry.type = TarType::fifo; break;
      default: return;  // a socket: meaningless without its process
    }
    entry.link = std::move(link);
    out_.write_header(entry);
  }

  void write_file(int file, const std::string& name) {
    const struct stat st = get_stat(file);
    if (!S_ISREG(st.st_mode)) return;  // swapped since we looked
    TarEntry entry = describe(st, name);
    entry.size = static_cast<std::uint64_t>(st.st_size);
    entry.xattrs = allowed(sys::list_xattrs(file));
    out_.write_header(entry);
    const bool sparse = static_cast<std::uint64_t>(st.st_blocks) * 512 < entry.size;
    std::uint64_t at = 0;
    while (at < entry.size) {
      if (sparse) at += skip_hole(file, at, entry.size);
      const std::uint64_t copied = at < entry.size ? copy_piece(file, at, entry.size, name) : 0;
      if (copied == 0) break;
      at += copied;
    }
    out_.write_zeros(entry.size - at);  // it shrank meanwhile
    out_.end_data();
  }

  std::uint64_t skip_hole(int file, std::uint64_t at, std::uint64_t size) {
    const off_t data = ::lseek(file, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno != ENXIO) return 0;  // the file system knows no holes
    const std::uint64_t end = data < 0 ? size : std::min(size, static_cast<std::uint64_t>(data));
    out_.write_zeros(end - at);
    return end - at;
  }

  std::uint64_t copy_piece(int file, std::uint64_t at, std::uint64_t size, const std::string& name) {
    const std::size_t want = std::min<std::uint64_t>(piece_.size(), size - at);
    for (;;) {
      const ssize_t got = ::pread(file, piece_.data(), want, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw Error::from_errno(errno, fmt::format("read {}", shown_name(name)));
      out_.write_data({piece_.data(), static_cast<std::size_t>(got)});
      return static_cast<std::uint64_t>(got);
    }
  }

  const PackOptions options_;
  TarWriter out_;
  std::uint64_t mount_ = 0;
  std::map<std::pair<dev_t, ino_t>, std::string> first_names_;  // of files with several links
  std::vector<char> piece_ = std::vector<char>(256 << 10);
};

}  // namespace

void pack(int root, const PackOptions& options, const ByteSink& sink) { Packer(options, sink).run(root); }

}  // namespace gantry::storage
