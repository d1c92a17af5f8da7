#include "storage/tree_compare.hpp"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "storage/hash.hpp"
#include "storage/tar_reader.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"
#include "sys/mount.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

struct Entry {
  struct stat st{};
  std::string link;
  std::vector<sys::Xattr> xattrs;
  std::string twin;  // the first name of the same file; empty if this is it
};

/// What a security module labels files with is the machine's, not the image's.
bool is_part_of_image(const std::string& xattr) { return xattr != "security.selinux"; }

using Visit = std::function<void(const std::string& path, const Entry& entry, int parent, const std::string& name)>;

/// Calls `visit` for each name in byte order of directories, parents first.
class Walk {
 public:
  explicit Walk(const Visit& visit) : visit_(visit) {}

  void below(int directory, const std::string& prefix, int depth) {
    if (depth > kDeepestWalk) throw Error(Errc::corrupted, "the tree is too deep");
    for (const std::string& name : list_names(directory)) {
      const auto st = find_stat(directory, name.c_str());
      if (!st) continue;
      const std::string path = prefix + name;
      Entry entry;
      entry.st = *st;
      if (S_ISLNK(st->st_mode)) entry.link = read_link(directory, name.c_str());
      for (sys::Xattr& attribute : sys::list_xattrs(directory, name))
        if (is_part_of_image(attribute.name)) entry.xattrs.push_back(std::move(attribute));
      if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
        const auto [first, fresh] = names_.emplace(std::pair(st->st_dev, st->st_ino), path);
        if (!fresh) entry.twin = first->second;
      }
      visit_(path, entry, directory, name);
      if (S_ISDIR(st->st_mode)) below(open_subdirectory(directory, name.c_str()).get(), path + "/", depth + 1);
    }
  }

 private:
  const Visit& visit_;
  std::map<std::pair<dev_t, ino_t>, std::string> names_;
};

/// Parts end in NUL, which no name contains.
std::string render(const std::string& path, const Entry& e) {
  const bool device = S_ISCHR(e.st.st_mode) || S_ISBLK(e.st.st_mode);
  const std::string numbers = fmt::format("{:o} {} {} {} {}:{}", e.st.st_mode, e.st.st_uid, e.st.st_gid,
                                          S_ISREG(e.st.st_mode) ? e.st.st_size : 0, device ? major(e.st.st_rdev) : 0,
                                          device ? minor(e.st.st_rdev) : 0);
  std::string out;
  for (const std::string& part : {path, numbers, e.link, e.twin}) (out += part) += '\0';
  for (const sys::Xattr& x : e.xattrs) (out += fmt::format("{}={}:", x.name, x.value.size()) + x.value) += '\0';
  return out += '\n';
}

bool same_bytes(int a_parent, int b_parent, const std::string& name) {
  const sys::Fd a = sys::open_beneath(a_parent, name, O_RDONLY | O_NOFOLLOW);
  const sys::Fd b = sys::open_beneath(b_parent, name, O_RDONLY | O_NOFOLLOW);
  std::string left(64 << 10, '\0'), right(64 << 10, '\0');
  for (off_t offset = 0;;) {
    const ssize_t got = ::pread(a.get(), left.data(), left.size(), offset);
    if (got < 0) return false;  // the disk gives an error: the content is not what it was
    if (got == 0) return true;
    const ssize_t other = ::pread(b.get(), right.data(), static_cast<std::size_t>(got), offset);
    if (other != got || left.compare(0, std::size_t(got), right, 0, std::size_t(got)) != 0) return false;
    offset += got;
  }
}

/// What is wrong with `found` in a few words; empty if nothing is.
std::string describe_difference(const Entry& found, const Entry& wanted) {
  if ((found.st.st_mode & S_IFMT) != (wanted.st.st_mode & S_IFMT)) return "is of another type";
  if (S_ISREG(found.st.st_mode) && found.st.st_size != wanted.st.st_size)
    return fmt::format("{} bytes instead of {}", found.st.st_size, wanted.st.st_size);
  if (found.st.st_mode != wanted.st.st_mode)
    return fmt::format("mode {:o} instead of {:o}", found.st.st_mode & 07777, wanted.st.st_mode & 07777);
  if (found.st.st_uid != wanted.st.st_uid || found.st.st_gid != wanted.st.st_gid)
    return fmt::format("owner {}:{} instead of {}:{}", found.st.st_uid, found.st.st_gid, wanted.st.st_uid,
                       wanted.st.st_gid);
  if (found.link != wanted.link) return "leads elsewhere";
  if (found.twin != wanted.twin) return "its hard links are others";
  const bool device = S_ISCHR(found.st.st_mode) || S_ISBLK(found.st.st_mode);
  if (device && found.st.st_rdev != wanted.st.st_rdev) return "is another device";
  const auto equal = [](const sys::Xattr& a, const sys::Xattr& b) { return a.name == b.name && a.value == b.value; };
  if (!std::equal(found.xattrs.begin(), found.xattrs.end(), wanted.xattrs.begin(), wanted.xattrs.end(), equal))
    return "its extended attributes are others";
  return {};
}

}  // namespace

std::string fingerprint_tree(int directory) {
  Sha256 hash;
  const Visit visit = [&](const std::string& path, const Entry& entry, int, const std::string&) {
    hash.update(render(path, entry));
  };
  Walk(visit).below(directory, "", 0);
  return hash.digest();
}

std::vector<std::string> compare_trees(int found, int wanted, bool contents, std::size_t limit) {
  std::map<std::string, Entry> present;
  const Visit collect = [&](const std::string& path, const Entry& entry, int, const std::string&) {
    present.emplace(path, entry);
  };
  Walk(collect).below(found, "", 0);
  std::vector<std::string> out;
  const auto add = [&](const std::string& path, const std::string& what) {
    if (out.size() < limit) out.push_back(shown_name(path) + ": " + what);
  };
  const Visit compare = [&](const std::string& path, const Entry& entry, int, const std::string&) {
    const auto it = present.find(path);
    if (it == present.end()) return add(path, "is missing");
    std::string difference = describe_difference(it->second, entry);
    if (difference.empty() && contents && S_ISREG(entry.st.st_mode) && entry.twin.empty() &&
        !same_bytes(found, wanted, path))
      difference = "its content is another";
    present.erase(it);
    if (!difference.empty()) add(path, difference);
  };
  Walk(compare).below(wanted, "", 0);
  for (const auto& [path, entry] : present) add(path, "does not belong there");
  return out;
}

std::set<std::string> find_mounted_layers(const sys::Paths& paths) {
  std::set<std::string> out;
  const std::string marker = paths.layers().string() + "/";
  for (const sys::MountInfo& mount : sys::list_mounts()) {
    if (mount.filesystem != "overlay") continue;
    const std::string& text = mount.super_options;
    for (auto at = text.find(marker); at != std::string::npos; at = text.find(marker, at + 1)) {
      const std::string hex = text.substr(at + marker.size(), 64);
      if (is_lower_hex(hex) && hex.size() == 64) out.insert("sha256:" + hex);
    }
  }
  return out;
}

}  // namespace gantry::storage
