#include "storage/root_access.hpp"

#include <atomic>
#include <thread>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "storage/test_support.hpp"
#include "storage/tree.hpp"

namespace gantry::storage {
namespace {

using test::describe_tree;
using test::error_of;
using test::TarBuilder;
using test::TemporaryDirectory;
using test::unpack_bytes;

class RootAccess : public testing::Test {
 protected:
  RootAccess() {
    unpack_bytes(root_,
                 TarBuilder()
                     .directory("etc", 0750)
                     .file("etc/passwd", "root:x:0:0")
                     .symlink("link", "/etc/passwd")
                     .symlink("broken", "../../../nowhere/at/all")
                     .symlink("dir", "etc")
                     .symlink("loop", "loop")
                     .symlink("host", "/../../../../etc")
                     .finish(),
                 UnpackMode::tree);
    fd_ = root_.open();
  }
  std::string tar_of(const std::string& path) {
    std::string out;
    tar_path(fd_.get(), path, [&](std::string_view bytes) { out += bytes; });
    return out;
  }
  TemporaryDirectory root_;
  sys::Fd fd_;
};

TEST_F(RootAccess, StatTellsAboutTheLinkAndWhereItLeads) {
  EXPECT_EQ(stat_path(fd_.get(), "/etc/passwd").size, 10);
  EXPECT_EQ(stat_path(fd_.get(), "/etc/passwd").name, "passwd");
  EXPECT_EQ(stat_path(fd_.get(), "/").name, "/");
  EXPECT_TRUE(S_ISDIR(stat_path(fd_.get(), "/etc/").mode));
  const PathStat link = stat_path(fd_.get(), "/link");
  EXPECT_TRUE(S_ISLNK(link.mode));
  EXPECT_EQ(link.link_target, "/etc/passwd");
  EXPECT_EQ(stat_path(fd_.get(), "/broken").link_target, "/nowhere/at/all");
  EXPECT_EQ(stat_path(fd_.get(), "/host").link_target, "/etc");
  EXPECT_TRUE(S_ISLNK(stat_path(fd_.get(), "/dir").mode));
  EXPECT_TRUE(S_ISDIR(stat_path(fd_.get(), "/dir/").mode)) << "a trailing slash follows";
  EXPECT_THROW(stat_path(fd_.get(), "/none"), Error);
  EXPECT_THROW(stat_path(fd_.get(), "/etc/passwd/x"), Error);
  EXPECT_NE(error_of([&] { stat_path(fd_.get(), "/loop"); }).find("too many links"), std::string::npos);
}

TEST_F(RootAccess, MakesDirectoriesWithTheirOwner) {
  make_directory_in_root(fd_.get(), "/srv/app/data", 1000, 1001);
  struct stat st{};
  for (const char* path : {"srv", "srv/app", "srv/app/data"}) {
    ASSERT_EQ(::stat((root_ / path).c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, 1000u);
    EXPECT_EQ(st.st_gid, 1001u);
  }
  make_directory_in_root(fd_.get(), "/etc", 1000, 1001);
  ASSERT_EQ(::stat((root_ / "etc").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 0u) << "what exists is left alone";
  make_directory_in_root(fd_.get(), "/broken/deeper", 1, 1);
  EXPECT_TRUE(S_ISDIR(stat_path(fd_.get(), "/nowhere/at/all/deeper").mode)) << "through the link, inside the root";
  EXPECT_THROW(make_directory_in_root(fd_.get(), "/etc/passwd/x", 0, 0), Error);
}

TEST_F(RootAccess, MakesFilesToMountOn) {
  make_file_in_root(fd_.get(), "/run/secrets/token");
  EXPECT_EQ(stat_path(fd_.get(), "/run/secrets/token").size, 0);
  make_file_in_root(fd_.get(), "/link");
  EXPECT_EQ(sys::read_file(root_ / "etc/passwd"), "root:x:0:0");
}

TEST_F(RootAccess, ReadsFilesInsideOnly) {
  EXPECT_EQ(read_file_in_root(fd_.get(), "/link"), "root:x:0:0");
  EXPECT_EQ(read_file_in_root(fd_.get(), "/host/hostname"), std::nullopt);
  EXPECT_EQ(read_file_in_root(fd_.get(), "/etc"), std::nullopt);
  EXPECT_EQ(read_file_in_root(fd_.get(), "/loop"), std::nullopt);
  ASSERT_EQ(::mkfifo((root_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(read_file_in_root(fd_.get(), "/fifo"), std::nullopt) << "and does not wait for a writer";
}

TEST_F(RootAccess, CopiesADirectoryWithAllItsLooks) {
  TarEntry tool;
  tool.name = "data/tool";
  tool.mode = 04755;
  tool.uid = 42;
  tool.gid = 43;
  tool.mtime = {123456, 0};
  tool.xattrs = {{"user.note", "hello"}};
  TemporaryDirectory image;
  unpack_bytes(image,
               TarBuilder()
                   .directory("data", 0700)
                   .entry(tool, "content")
                   .hardlink("data/linked", "data/tool")
                   .symlink("data/link", "/etc/shadow")
                   .device("data/null", 1, 3)
                   .directory("data/sub", 02770)
                   .file("data/sub/f", std::string(300'000, 'x'))
                   .finish(),
               UnpackMode::tree);
  ASSERT_EQ(::truncate((image / "data/sub/f").c_str(), 3'000'000), 0);
  ASSERT_EQ(::chown((image / "data").c_str(), 7, 8), 0);
  TemporaryDirectory volume;
  const sys::Fd root = image.open();
  EXPECT_TRUE(copy_directory_preserving(root.get(), "/data", volume.open().get()));
  auto expected = describe_tree(image / "data");
  auto copied = describe_tree(volume.path());
  EXPECT_EQ(copied.at("sub/f").size(), expected.at("sub/f").size());
  expected.erase("sub/f");  // its time changed with its size
  copied.erase("sub/f");
  EXPECT_EQ(copied, expected);
  struct stat st{};
  ASSERT_EQ(::stat((volume / "linked").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, 2u);
  ASSERT_EQ(::stat((volume / "sub/f").c_str(), &st), 0);
  EXPECT_LT(st.st_blocks * 512, 1'000'000) << "holes stay";
  ASSERT_EQ(::stat(volume.path().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  EXPECT_EQ(st.st_uid, 7u);
  EXPECT_FALSE(copy_directory_preserving(root.get(), "/none", volume.open().get()));
  EXPECT_FALSE(copy_directory_preserving(root.get(), "/data/tool", volume.open().get()));
}

TEST_F(RootAccess, EmptyMeansNoEntriesButLostAndFound) {
  TemporaryDirectory volume;
  EXPECT_TRUE(is_empty_directory(volume.open().get()));
  sys::make_directories(volume / "lost+found");
  EXPECT_TRUE(is_empty_directory(volume.open().get()));
  sys::write_atomically(volume / "x", "");
  EXPECT_FALSE(is_empty_directory(volume.open().get()));
}

TEST_F(RootAccess, TarNamesBeginWithTheLastComponent) {
  struct Case {
    const char* path;
    const char* name;
  };
  for (const Case& c : {Case{"/etc", "etc/passwd"}, Case{"/etc/passwd", "passwd"}, Case{"/etc/.", "passwd"},
                        Case{"/", "etc/passwd"}, Case{"/dir/", "dir/passwd"}}) {
    TemporaryDirectory out;
    unpack_bytes(out, tar_of(c.path), UnpackMode::tree);
    EXPECT_EQ(sys::read_file(out / c.name), "root:x:0:0") << c.path;
  }
  TemporaryDirectory out;
  unpack_bytes(out, tar_of("/link"), UnpackMode::tree);
  EXPECT_EQ(read_link(out.open().get(), "link"), "/etc/passwd") << "a link is sent as a link";
  EXPECT_THROW(tar_of("/none"), Error);
}

TEST_F(RootAccess, UntarResolvesLinksAgainstTheWholeRoot) {
  const std::string tar = TarBuilder().symlink("out", "/").file("out/through", "x").file("plain", "y").finish();
  untar_into(fd_.get(), "/dir", *make_string_source(tar), {});
  EXPECT_EQ(sys::read_file(root_ / "etc/plain"), "y");
  EXPECT_EQ(sys::read_file(root_ / "through"), "x");
  EXPECT_THROW(untar_into(fd_.get(), "/etc", *make_string_source(TarBuilder().file("../up", "x").finish()), {}), Error);
  EXPECT_EQ(error_of([&] { untar_into(fd_.get(), "/etc/passwd", *make_string_source(tar), {}); }),
            "extraction point is not a directory");
  EXPECT_THROW(untar_into(fd_.get(), "/none", *make_string_source(tar), {}), Error);
}

/// Someone in the container swaps a directory with a link to the host while an archive is written into it.
TEST_F(RootAccess, ARacingRenameCannotMoveTheWritingOutside) {
  TemporaryDirectory victim;
  sys::make_directories(root_ / "race");
  ASSERT_EQ(::symlink(victim.path().c_str(), (root_ / "evil").c_str()), 0);
  std::atomic<bool> stop{false};
  std::thread racer([&] {
    while (!stop) ::renameat2(AT_FDCWD, (root_ / "race").c_str(), AT_FDCWD, (root_ / "evil").c_str(), RENAME_EXCHANGE);
  });
  for (int i = 0; i < 500; ++i) {
    const std::string tar = TarBuilder().file("race/f", "x").directory("race/d").file("race/d/g", "y").finish();
    try {
      untar_into(fd_.get(), "/", *make_string_source(tar), {});
      make_directory_in_root(fd_.get(), "/race/made", 0, 0);
    } catch (const Error&) {
      continue;  // losing the race is fine
    }
  }
  stop = true;
  racer.join();
  EXPECT_TRUE(sys::list_directory(victim.path()).empty());
}

}  // namespace
}  // namespace gantry::storage
