#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/types.h>
#include <time.h>

#include "storage/unpack.hpp"
#include "sys/fd.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {

/// What a new file system object is to look like.
struct Metadata {
  mode_t mode = 0;  // permission and set-id bits
  uid_t uid = 0;
  gid_t gid = 0;
  timespec mtime{};
  std::vector<sys::Xattr> xattrs;
};

/// Creates objects below an open directory, by descriptors, so that neither links in the tree nor someone who changes
/// the tree meanwhile lead outside of it. Paths are clean and relative (clean_relative). What is in the way of a new
/// object is removed, except that a directory takes over an existing one. Blocks; throws Error, naming the path.
class TreeWriter {
 public:
  TreeWriter(int root, const UnpackOptions& options);

  void make_directory(const std::string& path, const Metadata& metadata);
  /// `write` gets the new file, opened for writing. If it throws, the file is removed again.
  void make_file(const std::string& path, const Metadata& metadata, const std::function<void(int)>& write);
  void make_symlink(const std::string& path, const std::string& target, const Metadata& metadata);
  /// `target` is clean and relative to the root.
  void make_hardlink(const std::string& path, const std::string& target);
  /// `type` is S_IFCHR, S_IFBLK or S_IFIFO.
  void make_node(const std::string& path, mode_t type, dev_t device, const Metadata& metadata);
  /// Hides `path` of the layers below. What this layer itself has there stays, and hides it as well.
  void make_whiteout(const std::string& path);
  /// Hides all that the layers below have in the directory `path`.
  void make_opaque(const std::string& path);

  /// Sets the times of directories, which creating things in them has changed. To be called once, at the end.
  UnpackResult finish();

 private:
  enum class Cleared { nothing, kept_directory, whiteout, other };
  int directory(const std::string& path, int links_left = 40);
  int make_missing_directory(const std::string& path, int links_left);
  int remember(const std::string& path, sys::Fd fd);
  Cleared clear(int parent, const std::string& base, const std::string& path, bool for_directory);
  void set_owner_and_mode(int fd, const Metadata& metadata);
  void set_xattrs(int directory, const std::string& base, int fd, const Metadata& metadata);
  uid_t owner(const Metadata& metadata) const { return options_.ids.host_uid(options_.uid.value_or(metadata.uid)); }
  gid_t group(const Metadata& metadata) const { return options_.ids.host_gid(options_.gid.value_or(metadata.gid)); }

  const int root_;
  const UnpackOptions options_;
  std::unordered_map<std::string, sys::Fd> directories_;  // open ones, by path
  std::vector<std::pair<std::string, timespec>> times_;   // of directories, in the order of the archive
  UnpackResult result_;
  bool replaced_ = false;  // something counted is gone again
};

}  // namespace gantry::storage
