#include "session/tree_receiver.hpp"

#include <cerrno>
#include <deque>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "session/go_mode.hpp"
#include "session/tree_listing.hpp"
#include "sys/file.hpp"
#include "sys/xattr.hpp"

namespace gantry::session {

namespace {

using fsutil::types::Packet;
using fsutil::types::Stat;

constexpr std::uint32_t kMaxEntries = 4'000'000;
constexpr std::size_t kMaxUnderWay = 64;  // Go's sender queues 128 requests, and then no longer reads

timespec to_timespec(std::int64_t ns) {
  timespec out{};
  out.tv_sec = ns / 1'000'000'000;
  out.tv_nsec = ns % 1'000'000'000;
  if (out.tv_nsec < 0) {
    out.tv_nsec += 1'000'000'000;
    --out.tv_sec;
  }
  return out;
}

void set_mtime(int directory, const char* name, std::int64_t ns) {
  const timespec times[2] = {to_timespec(ns), to_timespec(ns)};
  if (::utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW) != 0)
    throw Error::from_errno(errno, std::string("set the time of ") + name);
}

std::int64_t mtime_of(const struct stat& st) { return st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec; }

/// Attributes that a build context may carry. Those of overlay file systems would change what the tree means as a
/// layer, and the others belong to this host.
bool is_wanted_attribute(const std::string& name) {
  return (name.starts_with("user.") && !name.starts_with("user.overlay.")) || name == "security.capability";
}

void apply_attributes(int fd, const Stat& stat) {
  for (const auto& [name, value] : stat.xattrs()) {
    if (!is_wanted_attribute(name)) continue;
    try {
      sys::set_xattr(fd, {name, value});
    } catch (const Error& e) {
      if (e.sys_errno() != ENOTSUP) throw;
    }
  }
}

void apply_owner_and_mode(int directory, const char* name, const Stat& stat, mode_t mode) {
  if (::fchownat(directory, name, stat.uid(), stat.gid(), AT_SYMLINK_NOFOLLOW) != 0)
    throw Error::from_errno(errno, std::string("set the owner of ") + name);
  if (!S_ISLNK(mode) && ::fchmodat(directory, name, mode & 07777, 0) != 0)
    throw Error::from_errno(errno, std::string("set the mode of ") + name);
}

std::string link_of(int directory, const std::string& name) {
  std::string out(4096, '\0');
  const ssize_t length = ::readlinkat(directory, name.c_str(), out.data(), out.size());
  out.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
  return out;
}

/// What the client lists and the sender answers, packet by packet.
class TreeReceiver {
 public:
  TreeReceiver(PacketStream& stream, int root, bool always_fetch,
               const std::function<void(const std::string&)>& changed,
               const std::function<void(std::int64_t)>& progress)
      : stream_(stream),
        root_(root),
        always_fetch_(always_fetch),
        changed_(changed),
        progress_(progress),
        listing_(root, [this](int directory, const std::string& name, const std::string& path) {
          remove(directory, name, path);
        }) {}

  ReceiveReport run() {
    Packet packet;
    while (!(listed_ && wanted_.empty() && files_.empty())) {
      if (!stream_.read(packet)) throw Error(Errc::unavailable, "the client ended the transfer before it was complete");
      count(packet);
      take(packet);
      request_more();
    }
    make_links();
    restore_directory_times();
    say(Packet::PACKET_FIN);
    await_fin(packet);
    return report_;
  }

 private:
  struct File {
    std::string path;
    Stat stat;
    sys::Fd fd;
  };
  struct Wanted {
    std::uint32_t id = 0;
    std::string path;
    Stat stat;
  };

  void count(const Packet& packet) {
    report_.bytes += static_cast<std::int64_t>(packet.ByteSizeLong());
    progress_(report_.bytes);
  }

  void take(const Packet& packet) {
    switch (packet.type()) {
      case Packet::PACKET_STAT:
        if (packet.has_stat()) return take_entry(packet.stat());
        if (listed_) refuse("a second end of the listing");
        listing_.finish();
        listed_ = true;
        return;
      case Packet::PACKET_DATA: return take_data(packet);
      case Packet::PACKET_ERR: throw Error(Errc::internal, "error from sender: " + packet.data());
      default: refuse("an unexpected packet");
    }
  }

  [[noreturn]] static void refuse(const std::string& why) {
    throw Error(Errc::invalid_argument, "the client broke the rules of file transfer: " + why);
  }

  void take_entry(const Stat& stat) {
    if (listed_) refuse("an entry after the end of the listing");
    if (entries_ == kMaxEntries) refuse("too many entries");
    const std::uint32_t id = entries_++;
    ++report_.entries;
    TreeListing::Place place = listing_.place(stat.path());
    const mode_t mode = to_st_mode(stat.mode());
    if (S_ISDIR(mode)) return take_directory(place, stat, mode);
    if (S_ISREG(mode) && !stat.linkname().empty()) return take_hard_link(place, stat);
    if (place.exists && is_same(place, stat, mode)) return;
    if (place.exists) remove_place(place, stat.path());
    if (S_ISREG(mode)) {
      wanted_.push_back({id, stat.path(), stat});
    } else {
      make_special(place, stat, mode);
      note_change(stat.path());
    }
  }

  void take_directory(TreeListing::Place& place, const Stat& stat, mode_t mode) {
    if (place.exists && !S_ISDIR(place.st.st_mode)) remove_place(place, stat.path());
    const char* name = place.name.c_str();
    if (!place.exists && ::mkdirat(place.directory, name, 0700) != 0)
      throw Error::from_errno(errno, "make directory " + stat.path());
    const bool same =
        place.exists && place.st.st_mode == mode && place.st.st_uid == stat.uid() && place.st.st_gid == stat.gid();
    if (!same) {
      apply_owner_and_mode(place.directory, name, stat, mode);
      note_change(stat.path());
    }
    listing_.enter(place, stat.path());
    if (!place.exists && !stat.xattrs().empty())
      apply_attributes(sys::open_beneath(root_, stat.path(), O_RDONLY).get(), stat);
    directory_times_.emplace_back(stat.path(), stat.mod_time());
  }

  // Links are made when all files are there; until then whatever has the name stays.
  void take_hard_link(const TreeListing::Place&, const Stat& stat) {
    links_.emplace_back(stat.path(), stat.linkname());
  }

  bool is_same(const TreeListing::Place& place, const Stat& stat, mode_t mode) const {
    const struct stat& st = place.st;
    if (st.st_mode != mode || st.st_uid != stat.uid() || st.st_gid != stat.gid()) return false;
    if (mtime_of(st) != stat.mod_time()) return false;
    if (S_ISREG(mode)) return !always_fetch_ && st.st_size == stat.size();
    if (S_ISLNK(mode)) return link_of(place.directory, place.name) == stat.linkname();
    if (S_ISCHR(mode) || S_ISBLK(mode)) return st.st_rdev == device_of(stat);
    return true;
  }

  static dev_t device_of(const Stat& stat) {
    return makedev(static_cast<unsigned>(stat.devmajor()), static_cast<unsigned>(stat.devminor()));
  }

  void make_special(const TreeListing::Place& place, const Stat& stat, mode_t mode) {
    const char* name = place.name.c_str();
    const std::string target = stat.linkname();
    if (S_ISLNK(mode)) {
      if (target.empty() || target.find('\0') != std::string::npos) refuse("a symbolic link without a target");
      if (::symlinkat(target.c_str(), place.directory, name) != 0)
        throw Error::from_errno(errno, "link " + stat.path());
    } else {
      // Overlay file systems read character device 0:0 as "nothing here".
      if (S_ISCHR(mode) && device_of(stat) == 0) refuse("a character device 0:0");
      if (::mknodat(place.directory, name, (mode & S_IFMT) | 0600, device_of(stat)) != 0)
        throw Error::from_errno(errno, "make device " + stat.path());
    }
    apply_owner_and_mode(place.directory, name, stat, mode);
    set_mtime(place.directory, name, stat.mod_time());
  }

  void request_more() {
    while (!wanted_.empty() && files_.size() < kMaxUnderWay) {
      Wanted next = std::move(wanted_.front());
      wanted_.pop_front();
      File file{next.path, std::move(next.stat), {}};
      file.fd = sys::open_beneath(root_, next.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
      note_change(next.path);
      files_.emplace(next.id, std::move(file));
      Packet request;
      request.set_type(Packet::PACKET_REQ);
      request.set_id(next.id);
      // A broken stream shows at the next read.
      (void)stream_.write(request);
    }
  }

  void take_data(const Packet& packet) {
    const auto it = files_.find(packet.id());
    if (it == files_.end()) refuse("data that nobody asked for");
    if (!packet.data().empty()) return sys::write_all(it->second.fd.get(), packet.data());
    const File& file = it->second;
    const int fd = file.fd.get();
    if (::fchown(fd, file.stat.uid(), file.stat.gid()) != 0 || ::fchmod(fd, to_st_mode(file.stat.mode()) & 07777) != 0)
      throw Error::from_errno(errno, "set owner and mode of " + file.path);
    apply_attributes(fd, file.stat);
    const timespec times[2] = {to_timespec(file.stat.mod_time()), to_timespec(file.stat.mod_time())};
    if (::futimens(fd, times) != 0) throw Error::from_errno(errno, "set the time of " + file.path);
    files_.erase(it);
  }

  void make_links() {
    for (const auto& [path, target] : links_) {
      if (target.front() == '/') refuse("a hard link to an absolute path");
      const sys::Fd source = open_link_source(path, target);
      const auto slash = path.rfind('/');
      const sys::Fd parent =
          sys::open_beneath(root_, slash == std::string::npos ? "." : path.substr(0, slash), O_RDONLY | O_DIRECTORY);
      const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
      struct stat wanted{};
      struct stat found{};
      if (::fstat(source.get(), &wanted) != 0) throw Error::from_errno(errno, "stat " + target);
      if (::fstatat(parent.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0) {
        if (found.st_ino == wanted.st_ino && found.st_dev == wanted.st_dev) continue;
        sys::remove_tree(sys::entry_path(parent.get(), name));
      }
      if (::linkat(AT_FDCWD, sys::fd_path(source.get()).c_str(), parent.get(), name.c_str(), AT_SYMLINK_FOLLOW) != 0)
        throw Error::from_errno(errno, "link " + path);
      note_change(path);
    }
  }

  /// The file that a hard link names: one of the listing's, which are all that is below the root now.
  sys::Fd open_link_source(const std::string& path, const std::string& target) const {
    try {
      sys::Fd source = sys::open_beneath(root_, target, O_PATH | O_NOFOLLOW);
      struct stat st{};
      if (::fstat(source.get(), &st) == 0 && S_ISREG(st.st_mode)) return source;
    } catch (const Error&) {
      // Told below.
    }
    refuse("the hard link " + quote(path) + " leads to nothing that was sent");
  }

  // Making entries changes the times of directories, so theirs come last; children have no part in it.
  void restore_directory_times() {
    for (auto it = directory_times_.rbegin(); it != directory_times_.rend(); ++it) {
      const sys::Fd directory = sys::open_beneath(root_, it->first, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      const timespec times[2] = {to_timespec(it->second), to_timespec(it->second)};
      if (::futimens(directory.get(), times) != 0) throw Error::from_errno(errno, "set the time of " + it->first);
    }
  }

  void remove(int directory, const std::string& name, const std::string& path) {
    sys::remove_tree(sys::entry_path(directory, name));
    note_change(path);
  }

  void remove_place(TreeListing::Place& place, const std::string& path) {
    remove(place.directory, place.name, path);
    place.exists = false;
  }

  void note_change(const std::string& path) {
    report_.changed = true;
    changed_(path);
  }

  void say(Packet::Type type) {
    Packet packet;
    packet.set_type(type);
    (void)stream_.write(packet);
  }

  // The sender answers our FIN with its own. One that does not has sent everything nevertheless.
  void await_fin(Packet& packet) {
    for (int others = 0; others < 16 && stream_.read(packet); ++others)
      if (packet.type() == Packet::PACKET_FIN) return;
  }

  PacketStream& stream_;
  const int root_;
  const bool always_fetch_;
  const std::function<void(const std::string&)>& changed_;
  const std::function<void(std::int64_t)>& progress_;
  TreeListing listing_;
  ReceiveReport report_;
  std::uint32_t entries_ = 0;
  bool listed_ = false;
  std::deque<Wanted> wanted_;
  std::unordered_map<std::uint32_t, File> files_;
  std::vector<std::pair<std::string, std::string>> links_;
  std::vector<std::pair<std::string, std::int64_t>> directory_times_;
};

}  // namespace

ReceiveReport receive_tree(PacketStream& stream, int root, bool always_fetch,
                           const std::function<void(const std::string&)>& changed,
                           const std::function<void(std::int64_t)>& progress) {
  TreeReceiver receiver(stream, root, always_fetch, changed, progress);
  try {
    return receiver.run();
  } catch (const Error& e) {
    Packet failure;
    failure.set_type(Packet::PACKET_ERR);
    failure.set_data(e.message());
    (void)stream.write(failure);
    throw;
  }
}

}  // namespace gantry::session
