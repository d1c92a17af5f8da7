#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "session/go_mode.hpp"
#include "session/test_packets.hpp"
#include "session/tree_receiver.hpp"
#include "session/tree_sender.hpp"
#include "sys/file.hpp"
#include "sys/xattr.hpp"

namespace gantry::session {
namespace {

namespace fs = std::filesystem;
using fsutil::types::Packet;

class TreeTransfer : public testing::Test {
 protected:
  TreeTransfer() {
    fs::create_directories(from_);
    fs::create_directories(to_);
  }
  ~TreeTransfer() override { sys::remove_tree(top_); }

  static sys::Fd open(const fs::path& path) { return sys::open_file(path, O_RDONLY | O_DIRECTORY); }

  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string read(const fs::path& path) { return sys::read_file(path); }

  ReceiveReport transfer(bool always_fetch = false) {
    changed_.clear();
    PacketPipe pipe;
    std::thread sender([&] {
      const sys::Fd root = open(from_);
      send_tree_packets(pipe.end(0), root.get(), [](std::int64_t) {});
      pipe.close(0);
    });
    const sys::Fd root = open(to_);
    ReceiveReport report;
    try {
      report = receive_tree(
          pipe.end(1), root.get(), always_fetch, [&](const std::string& path) { changed_.push_back(path); },
          [](std::int64_t) {});
    } catch (const Error& e) {
      ADD_FAILURE() << e.message();
      pipe.close(1);
    }
    sender.join();
    std::sort(changed_.begin(), changed_.end());
    return report;
  }

  static Packet entry(const std::string& path, std::uint32_t mode, const std::string& link = "") {
    Packet packet;
    packet.mutable_stat()->set_path(path);
    packet.mutable_stat()->set_mode(mode);
    packet.mutable_stat()->set_linkname(link);
    return packet;
  }
  static Packet data(std::uint32_t id, const std::string& bytes) {
    Packet packet;
    packet.set_type(Packet::PACKET_DATA);
    packet.set_id(id);
    packet.set_data(bytes);
    return packet;
  }

  /// What a receiver says to a sender that sends exactly this.
  std::string refusal(std::vector<Packet> script) {
    ScriptedPackets stream(std::move(script));
    const sys::Fd root = open(to_);
    try {
      receive_tree(stream, root.get(), false, [](const std::string&) {}, [](std::int64_t) {});
    } catch (const Error& e) {
      EXPECT_FALSE(stream.written.empty());
      if (!stream.written.empty()) {
        EXPECT_EQ(stream.written.back().type(), Packet::PACKET_ERR);
      }
      return e.message();
    }
    return "";
  }

  const fs::path top_ = fs::temp_directory_path() / ("gantry-transfer-" + random_id().substr(0, 12));
  const fs::path from_ = top_ / "from";
  const fs::path to_ = top_ / "to";
  std::vector<std::string> changed_;
};

void make_varied_tree(const fs::path& at) {
  fs::create_directories(at / "a/b");
  fs::create_directories(at / "a-b");
  std::ofstream(at / "a/b/file") << "text";
  std::ofstream(at / "a.txt") << std::string(100'000, 'x');
  std::ofstream(at / "empty");
  std::ofstream(at / std::string("n\new \xff line")) << "odd";
  fs::create_symlink("/etc/passwd", at / "link");
  fs::create_hard_link(at / "a.txt", at / "hard");
  fs::permissions(at / "a/b/file", fs::perms(04751));
  fs::permissions(at / "a-b", fs::perms(01777));
  ASSERT_EQ(::mkfifo((at / "pipe").c_str(), 0640), 0);
  ASSERT_EQ(::mknod((at / "null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(::lchown((at / "empty").c_str(), 12, 34), 0);
}

TEST_F(TreeTransfer, BringsEveryKindOfFileWithItsMetadata) {
  make_varied_tree(from_);
  const sys::Fd file(::open((from_ / "empty").c_str(), O_RDONLY | O_CLOEXEC));
  bool attributes = true;
  try {
    sys::set_xattr(file.get(), {"user.note", "kept"});
  } catch (const Error&) {
    attributes = false;  // a file system without them
  }

  const ReceiveReport report = transfer();

  EXPECT_TRUE(report.changed);
  EXPECT_EQ(report.entries, 11);
  EXPECT_GT(report.bytes, 100'000);
  EXPECT_EQ(read(to_ / "a.txt").size(), 100'000U);
  EXPECT_EQ(read(to_ / "a/b/file"), "text");
  EXPECT_EQ(read(to_ / std::string("n\new \xff line")), "odd");
  EXPECT_EQ(fs::read_symlink(to_ / "link"), "/etc/passwd");
  EXPECT_TRUE(fs::equivalent(to_ / "a.txt", to_ / "hard"));
  for (const char* name : {"a", "a/b", "a/b/file", "a-b", "a.txt", "empty", "pipe", "null", "link", "hard"}) {
    struct stat was{};
    struct stat is{};
    ASSERT_EQ(::lstat((from_ / name).c_str(), &was), 0);
    ASSERT_EQ(::lstat((to_ / name).c_str(), &is), 0) << name;
    EXPECT_EQ(was.st_mode, is.st_mode) << name;
    EXPECT_EQ(was.st_uid, is.st_uid) << name;
    EXPECT_EQ(was.st_gid, is.st_gid) << name;
    EXPECT_EQ(was.st_rdev, is.st_rdev) << name;
    EXPECT_EQ(was.st_mtim.tv_sec, is.st_mtim.tv_sec) << name;
    EXPECT_EQ(was.st_mtim.tv_nsec, is.st_mtim.tv_nsec) << name;
  }
  if (attributes) {
    const sys::Fd copy(::open((to_ / "empty").c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(sys::find_xattr(copy.get(), "user.note"), "kept");
  }
}

TEST_F(TreeTransfer, FetchesOnlyWhatChanged) {
  make_varied_tree(from_);
  transfer();
  EXPECT_FALSE(transfer().changed);
  EXPECT_TRUE(changed_.empty());

  write(from_ / "a/b/file", "other text");
  fs::remove(from_ / "pipe");
  fs::remove_all(from_ / "a-b");
  write(from_ / "a-b", "a file now");
  fs::remove(from_ / "link");
  fs::create_directories(from_ / "link/in");
  fs::create_directories(from_ / "zz");
  const ReceiveReport report = transfer();

  EXPECT_LT(report.bytes, 100'000);
  EXPECT_EQ(read(to_ / "a/b/file"), "other text");
  EXPECT_EQ(read(to_ / "a-b"), "a file now");
  EXPECT_TRUE(fs::is_directory(to_ / "link/in"));
  EXPECT_FALSE(fs::exists(fs::symlink_status(to_ / "pipe")));
  for (const char* path : {"a-b", "a/b/file", "link", "link/in", "pipe", "zz"})
    EXPECT_TRUE(std::binary_search(changed_.begin(), changed_.end(), path)) << path;
  EXPECT_FALSE(std::binary_search(changed_.begin(), changed_.end(), "a.txt"));
}

TEST_F(TreeTransfer, FetchesEverythingIfToldTo) {
  write(from_ / "Dockerfile", "FROM scratch");
  transfer();
  EXPECT_TRUE(transfer(true).changed);
}

TEST_F(TreeTransfer, RemovesWhatTheClientNoLongerHas) {
  make_varied_tree(to_);
  write(from_ / "only", "one");
  transfer();
  EXPECT_EQ(std::distance(fs::directory_iterator(to_), fs::directory_iterator()), 1);
  EXPECT_EQ(read(to_ / "only"), "one");
}

TEST_F(TreeTransfer, TakesManyFilesAtOnce) {
  for (int i = 0; i < 2000; ++i) write(from_ / std::to_string(i), "content " + std::to_string(i));
  EXPECT_EQ(transfer().entries, 2000);
  EXPECT_EQ(read(to_ / "1999"), "content 1999");
}

TEST_F(TreeTransfer, NeverLeavesTheDirectory) {
  write(top_ / "outside", "untouched");
  fs::create_symlink("..", to_ / "up");

  EXPECT_NE(refusal({entry("../outside", 0644)}).find("not clean"), std::string::npos);
  EXPECT_NE(refusal({entry("/outside", 0644)}).find("absolute"), std::string::npos);
  EXPECT_NE(refusal({entry("a/../../outside", 0644)}).find("not clean"), std::string::npos);
  EXPECT_NE(refusal({entry("up/outside", 0644)}).find("did not come before"), std::string::npos);
  EXPECT_NE(refusal({entry("up", kGoSymlink | 0777, ".."), entry("up/outside", 0644)}).find("did not come before"),
            std::string::npos);
  EXPECT_NE(refusal({entry("h", 0644, "../outside"), Packet()}).find("hard link"), std::string::npos);
  EXPECT_NE(refusal({entry("a", kGoSymlink | 0777, "../outside"), entry("h", 0644, "a"), Packet()}).find("hard link"),
            std::string::npos);
  EXPECT_NE(refusal({entry("a", kGoSymlink | 0777, ".."), entry("h", 0644, "a/outside"), Packet()}).find("hard link"),
            std::string::npos);
  EXPECT_EQ(read(top_ / "outside"), "untouched");
  EXPECT_EQ(std::distance(fs::directory_iterator(top_), fs::directory_iterator()), 3);
}

TEST_F(TreeTransfer, RefusesListingsOutOfOrder) {
  EXPECT_NE(refusal({entry("b", 0644), entry("a", 0644)}).find("out of order"), std::string::npos);
  EXPECT_NE(refusal({entry("a", 0644), entry("a", 0644)}).find("out of order"), std::string::npos);
  EXPECT_NE(refusal({entry("a", kGoDirectory | 0755), entry("b", kGoDirectory | 0755), entry("a/x", 0644)})
                .find("did not come before"),
            std::string::npos);
  EXPECT_NE(refusal({entry("a", 0644), Packet(), Packet()}).find("second end"), std::string::npos);
  EXPECT_NE(refusal({entry("a", 0644), Packet(), entry("b", 0644)}).find("after the end"), std::string::npos);
}

TEST_F(TreeTransfer, RefusesWhatNobodyAskedFor) {
  EXPECT_NE(refusal({data(0, "x")}).find("nobody asked"), std::string::npos);
  EXPECT_NE(refusal({entry("d", kGoDirectory | 0755), data(0, "x")}).find("nobody asked"), std::string::npos);
  EXPECT_NE(refusal({entry("a", 0644), data(0, ""), data(0, "x"), Packet()}).find("nobody asked"), std::string::npos);
  EXPECT_NE(refusal({entry("s", kGoSocket | 0755)}).find("invalid file type"), std::string::npos);
  EXPECT_NE(refusal({entry("w", kGoDevice | kGoCharDevice)}).find("0:0"), std::string::npos);
  EXPECT_NE(refusal({entry(std::string("a\0b", 3), 0644)}).find("NUL"), std::string::npos);
  EXPECT_NE(refusal({entry(std::string(256, 'n'), 0644)}).find("too long"), std::string::npos);
  Packet failure;
  failure.set_type(Packet::PACKET_ERR);
  failure.set_data("disk on fire");
  EXPECT_EQ(refusal({failure}), "error from sender: disk on fire");
  EXPECT_NE(refusal({entry("a", 0644)}).find("before it was complete"), std::string::npos);
}

TEST_F(TreeTransfer, KeepsOverlayAttributesOut) {
  Packet directory = entry("d", kGoDirectory | 0755);
  (*directory.mutable_stat()->mutable_xattrs())["trusted.overlay.opaque"] = "y";
  (*directory.mutable_stat()->mutable_xattrs())["user.overlay.opaque"] = "y";
  EXPECT_EQ(refusal({directory, Packet()}), "");
  EXPECT_TRUE(sys::list_xattrs(open(to_ / "d").get()).empty());
}

TEST_F(TreeTransfer, AReceiverCannotAskForWhatWasNotListed) {
  fs::create_directories(from_ / "d");
  for (const std::uint32_t id : {0U, 7U}) {
    Packet request;
    request.set_type(Packet::PACKET_REQ);
    request.set_id(id);
    ScriptedPackets stream({request});
    EXPECT_THROW(send_tree_packets(stream, open(from_).get(), [](std::int64_t) {}), Error);
  }
}

TEST(GoMode, IsTheSameBothWays) {
  for (const mode_t mode : {S_IFREG | 0644, S_IFDIR | 01777, S_IFLNK | 0777, S_IFIFO | 0600, S_IFBLK | 0660,
                            S_IFCHR | 0666, S_IFREG | 06755})
    EXPECT_EQ(to_st_mode(to_go_mode(static_cast<mode_t>(mode))), static_cast<mode_t>(mode));
  EXPECT_EQ(to_go_mode(S_IFDIR | 0755), 0x80000000U | 0755U);
}

}  // namespace
}  // namespace gantry::session
