#include "storage/unpack.hpp"

#include <cerrno>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "storage/tar_reader.hpp"
#include "storage/tree.hpp"
#include "storage/tree_writer.hpp"

namespace gantry::storage {
namespace {

[[noreturn]] void refuse(const TarEntry& entry, std::string_view why) {
  throw Error(Errc::invalid_argument, fmt::format("tar entry {}: {}", shown_name(entry.name), why));
}

/// The entry's path relative to the root; empty for the root itself.
std::string checked_path(const TarEntry& entry, const std::string& name, const UnpackOptions& options) {
  const UnpackBudget& budget = options.budget;
  if (name.size() > budget.path_length)
    refuse(entry, fmt::format("name exceeds the limit of {} bytes", budget.path_length));
  auto path = options.clamp_names ? clamp_relative(name) : clean_relative(name);
  if (!path) refuse(entry, fmt::format("{} leaves the root directory", shown_name(name)));
  std::size_t depth = 0;
  for (std::string_view rest = *path; !rest.empty(); ++depth) {
    const auto [part, tail] = split_once(rest, '/');
    if (part.size() > budget.component_length)
      refuse(entry, fmt::format("a name exceeds the limit of {} bytes", budget.component_length));
    rest = tail;
  }
  if (depth > budget.depth) refuse(entry, fmt::format("nested deeper than the limit of {}", budget.depth));
  return std::move(*path);
}

void write_zeros_up_to(int fd, std::uint64_t size) {
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) throw Error::from_errno(errno, "set size");
}

void write_at(int fd, std::string_view bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw Error::from_errno(errno, "write");
    bytes.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
}

class Unpacker {
 public:
  Unpacker(int root, ByteSource& source, const UnpackOptions& options)
      : options_(options), reader_(source, options.budget), writer_(root, options) {}

  UnpackResult run() {
    while (const TarEntry* entry = reader_.next()) place(*entry);
    return writer_.finish();
  }

 private:
  void place(const TarEntry& entry) {
    const std::string name = checked_path(entry, entry.name, options_);
    if (name.empty()) return;  // the root itself keeps its looks, as in containerd
    const std::string path = in_directory(name);
    if (options_.mode == UnpackMode::layer && place_whiteout(entry, path)) return;
    const Metadata metadata{entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs};
    switch (entry.type) {
      case TarType::directory: return writer_.make_directory(path, metadata);
      case TarType::file: return place_file(entry, path, metadata);
      case TarType::symlink: return writer_.make_symlink(path, entry.link, metadata);
      case TarType::hardlink: return place_hardlink(entry, path);
      case TarType::fifo: return writer_.make_node(path, S_IFIFO, 0, metadata);
      case TarType::block_device: return writer_.make_node(path, S_IFBLK, entry.device, metadata);
      case TarType::character_device: return place_character_device(entry, path, metadata);
    }
  }

  /// True if the name means something to the layer format. Source: OCI image specification, "Whiteouts".
  bool place_whiteout(const TarEntry& entry, const std::string& path) {
    const auto [directory, base] = split_path(path);
    for (const std::string& part : split(directory, '/'))
      if (part.starts_with(kWhiteoutPrefix)) refuse(entry, "a whiteout cannot be a directory");
    if (!base.starts_with(kWhiteoutPrefix)) return false;
    if (base == kOpaqueMarker) {
      writer_.make_opaque(directory);
      return true;
    }
    const std::string hidden = base.substr(kWhiteoutPrefix.size());
    if (hidden.starts_with(kWhiteoutPrefix)) return true;  // AUFS's own book-keeping
    if (hidden.empty() || hidden == "." || hidden == "..") refuse(entry, "invalid whiteout");
    writer_.make_whiteout(directory.empty() ? hidden : directory + "/" + hidden);
    return true;
  }

  void place_file(const TarEntry& entry, const std::string& path, const Metadata& metadata) {
    writer_.make_file(path, metadata, [&](int fd) {
      std::string_view bytes;
      std::uint64_t offset = 0;
      std::uint64_t end = 0;
      while (reader_.read_data(bytes, offset)) {
        write_at(fd, bytes, offset);
        end = offset + bytes.size();
      }
      if (end < entry.size) write_zeros_up_to(fd, entry.size);
    });
  }

  void place_hardlink(const TarEntry& entry, const std::string& path) {
    const std::string target = checked_path(entry, entry.link, options_);
    if (options_.mode == UnpackMode::layer && split_path(target).second.starts_with(kWhiteoutPrefix))
      refuse(entry, "hard link to a whiteout");
    writer_.make_hardlink(path, target.empty() ? target : in_directory(target));
  }

  void place_character_device(const TarEntry& entry, const std::string& path, const Metadata& metadata) {
    // Overlayfs reads 0:0 as a whiteout. A layer may carry one in that form; a live tree may not.
    if (entry.device != 0) return writer_.make_node(path, S_IFCHR, entry.device, metadata);
    if (options_.mode != UnpackMode::layer) refuse(entry, "character device 0:0 is not allowed");
    writer_.make_whiteout(path);
  }

  std::string in_directory(const std::string& path) const {
    return options_.directory.empty() ? path : options_.directory + "/" + path;
  }

  const UnpackOptions options_;
  TarReader reader_;
  TreeWriter writer_;
};

}  // namespace

bool is_allowed_xattr(const std::string& name) {
  if (name.starts_with("user.")) return !name.starts_with("user.overlay.");
  return name == "security.capability" || name == "system.posix_acl_access" || name == "system.posix_acl_default";
}

UnpackResult unpack(int root, ByteSource& source, const UnpackOptions& options) {
  return Unpacker(root, source, options).run();
}

}  // namespace gantry::storage
