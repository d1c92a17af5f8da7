#include "session/tree_sender.hpp"

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.hpp"
#include "session/go_mode.hpp"
#include "session/tree_listing.hpp"
#include "sys/file.hpp"
#include "sys/xattr.hpp"

namespace gantry::session {

namespace {

using fsutil::types::Packet;
using fsutil::types::Stat;

constexpr std::size_t kPiece = 32 << 10;
constexpr std::size_t kMaxQueued = 4 << 20;  // requests: more than anybody has files
constexpr int kMaxDepth = 256;               // each level holds a descriptor

/// What the receiver says, read by a thread of its own: it asks for files while we still list.
class Requests {
 public:
  explicit Requests(PacketStream& stream) : reader_([this, &stream] { read(stream); }) {}
  ~Requests() { reader_.join(); }
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  /// The next file that is asked for. False: the receiver has everything. Throws what it reports.
  bool next(std::uint32_t& id) {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !ids_.empty() || ended_; });
    if (!failure_.empty()) throw Error(broken_ ? Errc::unavailable : Errc::internal, failure_);
    if (ids_.empty()) return false;
    id = ids_.front();
    ids_.pop_front();
    return true;
  }

 private:
  void read(PacketStream& stream) {
    Packet packet;
    bool finished = false;
    while (!finished && stream.read(packet)) {
      const std::lock_guard lock(mutex_);
      if (packet.type() == Packet::PACKET_REQ) ids_.push_back(packet.id());
      if (ids_.size() > kMaxQueued) failure_ = "the client asks for too much";
      if (packet.type() == Packet::PACKET_ERR) failure_ = "error from receiver: " + packet.data();
      finished = packet.type() == Packet::PACKET_FIN || !failure_.empty();
      ready_.notify_one();
    }
    const std::lock_guard lock(mutex_);
    broken_ = !finished;
    if (broken_) failure_ = "the client ended the transfer before it was complete";
    ended_ = true;
    ready_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::uint32_t> ids_;
  std::string failure_;
  bool ended_ = false;
  bool broken_ = false;
  std::thread reader_;
};

class TreeSender {
 public:
  TreeSender(PacketStream& stream, int root, const std::function<void(std::int64_t)>& progress)
      : stream_(stream), root_(root), progress_(progress) {}

  void run() {
    Requests requests(stream_);
    try {
      list(root_, "", 0);
      send(Packet());
      for (std::uint32_t id = 0; requests.next(id);) send_file(id);
      Packet end;
      end.set_type(Packet::PACKET_FIN);
      send(end);
    } catch (const Error& e) {
      Packet failure;
      failure.set_type(Packet::PACKET_ERR);
      failure.set_data(e.message());
      (void)stream_.write(failure);
      // A broken stream ends by itself, and tells why.
      if (e.code() != Errc::unavailable) stream_.cancel();
      throw;
    }
  }

 private:
  void send(const Packet& packet) {
    if (!stream_.write(packet)) throw Error(Errc::unavailable, "the client ended the transfer before it was complete");
    bytes_ += static_cast<std::int64_t>(packet.ByteSizeLong());
    progress_(bytes_);
  }

  void list(int directory, const std::string& path, int depth) {
    if (depth > kMaxDepth) throw Error(Errc::invalid_argument, "directories are nested too deeply: " + path);
    for (const auto& name : sorted_names(directory)) {
      const std::string full = path.empty() ? name : path + "/" + name;
      struct stat st{};
      if (::fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
        throw Error::from_errno(errno, "stat " + full);
      if (S_ISSOCK(st.st_mode)) continue;
      Packet packet;
      describe(directory, name, full, st, *packet.mutable_stat());
      send(packet);
      paths_.push_back(S_ISREG(st.st_mode) ? full : "");
      if (S_ISDIR(st.st_mode))
        list(sys::open_beneath(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).get(), full, depth + 1);
    }
  }

  void describe(int directory, const std::string& name, const std::string& full, const struct stat& st, Stat& out) {
    out.set_path(full);
    out.set_mode(to_go_mode(st.st_mode));
    out.set_uid(st.st_uid);
    out.set_gid(st.st_gid);
    out.set_mod_time(st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec);
    if (S_ISREG(st.st_mode)) {
      out.set_size(st.st_size);
      if (st.st_nlink > 1) {
        const auto [first, added] = inodes_.try_emplace({st.st_dev, st.st_ino}, full);
        if (!added) {
          out.set_linkname(first->second);
          out.set_size(0);
        }
      }
    } else if (S_ISLNK(st.st_mode)) {
      std::string target(4096, '\0');
      const ssize_t length = ::readlinkat(directory, name.c_str(), target.data(), target.size());
      if (length < 0) throw Error::from_errno(errno, "read link " + full);
      target.resize(static_cast<std::size_t>(length));
      out.set_linkname(target);
    } else if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      out.set_devmajor(major(st.st_rdev));
      out.set_devminor(minor(st.st_rdev));
    }
    for (auto& attribute : sys::list_xattrs(directory, name))
      if (attribute.name.starts_with("user.") || attribute.name == "security.capability")
        (*out.mutable_xattrs())[attribute.name] = std::move(attribute.value);
  }

  void send_file(std::uint32_t id) {
    if (id >= paths_.size() || paths_[id].empty())
      throw Error(Errc::invalid_argument, "the client asked for a file that was not listed");
    const sys::Fd file = sys::open_beneath(root_, paths_[id], O_RDONLY | O_NOFOLLOW);
    Packet packet;
    packet.set_type(Packet::PACKET_DATA);
    packet.set_id(id);
    std::string piece(kPiece, '\0');
    for (;;) {
      const ssize_t count = ::read(file.get(), piece.data(), piece.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw Error::from_errno(errno, "read " + paths_[id]);
      packet.set_data(piece.data(), static_cast<std::size_t>(count));
      send(packet);
      if (count == 0) return;
    }
  }

  PacketStream& stream_;
  const int root_;
  const std::function<void(std::int64_t)>& progress_;
  std::int64_t bytes_ = 0;
  std::vector<std::string> paths_;  // by number; empty for what cannot be asked for
  std::map<std::pair<dev_t, ino_t>, std::string> inodes_;
};

}  // namespace

void send_tree_packets(PacketStream& stream, int root, const std::function<void(std::int64_t)>& progress) {
  TreeSender(stream, root, progress).run();
}

}  // namespace gantry::session
