#include "buildops/copy.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.hpp"
#include "buildops/test_support.hpp"
#include "buildops/tree_actions.hpp"
#include "sys/xattr.hpp"

namespace gantry::buildops {
namespace {

using test::error_of;
using test::TemporaryDirectory;
using test::Tree;

class Copy : public ::testing::Test {
 protected:
  /// As the frontend asks for COPY.
  static CopyRequest request(std::string source, std::string destination) {
    CopyRequest r;
    r.source = std::move(source);
    r.destination = std::move(destination);
    r.follow_symlink = r.directory_contents = r.create_destination = r.wildcards = r.allow_empty_wildcard = true;
    return r;
  }
  void run(const CopyRequest& r) { copy(from.fd(), to.fd(), r, {}); }
  void run(std::string source, std::string destination) { run(request(std::move(source), std::move(destination))); }

  TemporaryDirectory scratch;
  Tree from{scratch / "from"};
  Tree to{scratch / "to"};
};

TEST_F(Copy, AFileGoesIntoADirectoryOrBecomesTheDestination) {
  from.file("foo", "content", 0640, 7);
  to.directory("dir");
  run("/foo", "/dir");
  run("/foo", "/new/");
  run("/foo", "/other/name");
  EXPECT_EQ(to.look("dir/foo"), "f 0640 7:7 content");
  EXPECT_EQ(to.look("new"), "d 0755 0:0");
  EXPECT_EQ(to.look("new/foo"), "f 0640 7:7 content");
  EXPECT_EQ(to.look("other/name"), "f 0640 7:7 content");
}

TEST_F(Copy, ADirectorysContentsAreMerged) {
  from.directory("d", 0700, 5).file("d/a", "new").directory("d/sub", 0711, 6).file("d/sub/b", "b");
  to.directory("dest", 0500, 9).file("dest/a", "old").directory("dest/sub", 0777, 8).file("dest/sub/keep", "k");
  run("/d", "/dest");
  EXPECT_EQ(to.look("dest"), "d 0500 9:9") << "the destination itself keeps its looks";
  EXPECT_EQ(to.look("dest/sub"), "d 0711 6:6") << "what is merged below takes the source's";
  EXPECT_EQ(to.read("dest/a"), "new");
  EXPECT_EQ(to.read("dest/sub/keep"), "k");
  run("/d", "/fresh");
  EXPECT_EQ(to.look("fresh"), "d 0755 0:0");
  EXPECT_EQ(to.look("fresh/sub/b"), "f 0644 0:0 b");
}

TEST_F(Copy, ADirectoryItselfIsCopiedIfItsContentsAreNotMeant) {
  from.directory("d", 0711, 5).file("d/a", "1");
  to.directory("dest");
  CopyRequest r = request("/d", "/dest");
  r.directory_contents = false;
  run(r);
  EXPECT_EQ(to.look("dest/d"), "d 0711 5:5");
  r.destination = "/named";
  run(r);
  EXPECT_EQ(to.look("named"), "d 0711 5:5");
  EXPECT_EQ(to.read("named/a"), "1");
}

TEST_F(Copy, WhatIsInTheWayIsReplacedUnlessTheKindsDiffer) {
  from.file("f", "f").directory("d/x");
  to.file("victim", "v").symlink("link", "victim").hardlink("hard", "victim").directory("x").file("d/x", "file");
  run("/f", "/hard");
  EXPECT_EQ(to.read("victim"), "v") << "a hard link at the destination is replaced, not written through";
  EXPECT_EQ(error_of([&] { run("/d", "/d"); }), "cannot copy to non-directory: /d/x");
  from.file("e/x", "now a file");
  EXPECT_EQ(error_of([&] { run("/e", "/"); }), "cannot replace to directory /x with file");
  CopyRequest r = request("/e", "/");
  r.always_replace = true;
  run(r);
  EXPECT_EQ(to.look("x"), "f 0644 0:0 now a file");
  r.source = "/d";
  r.destination = "/d";
  run(r);
  EXPECT_EQ(to.look("d/x"), "d 0755 0:0");
}

TEST_F(Copy, LinksOfTheDestinationAreFollowedInsideOfIt) {
  from.file("foo", "x");
  to.symlink("symlink", "../tmp/target").symlink("abs", "/real").directory("tmp/target").directory("real");
  run("/foo", "/symlink/");
  run("/foo", "/abs/deeper/");
  EXPECT_EQ(to.read("tmp/target/foo"), "x");
  EXPECT_EQ(to.read("real/deeper/foo"), "x");
  EXPECT_EQ(to.look("symlink"), "l -> ../tmp/target");
}

TEST_F(Copy, LinksOfTheSourceAreFollowedAtTheTopOnly) {
  from.file("bar/x", "x").symlink("foo", "bar").symlink("bar/inner", "x").symlink("lf", "foo/x").symlink("out", "/etc");
  run("/foo", "/a/");
  EXPECT_EQ(to.read("a/x"), "x");
  EXPECT_EQ(to.look("a/inner"), "l -> x");
  run("/l*", "/b/");
  EXPECT_EQ(to.look("b/lf"), "f 0644 0:0 x");
  run("/foo/x", "/c");
  EXPECT_EQ(to.read("c"), "x");
  EXPECT_EQ(error_of([&] { run("/out/passwd", "/d"); }), "\"/out/passwd\": not found");
}

TEST_F(Copy, WildcardsMayBeEmptyButPathsMustExist) {
  from.file("a1", "1").file("a2", "2").file("b/a3", "3");
  run("/a*", "/x/");
  EXPECT_EQ(to.describe(), (std::map<std::string, std::string>{
                               {"x", "d 0755 0:0"}, {"x/a1", "f 0644 0:0 1"}, {"x/a2", "f 0644 0:0 2"}}));
  run("/nomatch*", "/y/");
  EXPECT_EQ(to.look("y"), "");
  EXPECT_EQ(error_of([&] { run("/nope", "/y/"); }), "\"/nope\": not found");
  CopyRequest strict = request("/nomatch*", "/y/");
  strict.allow_empty_wildcard = false;
  EXPECT_EQ(error_of([&] { run(strict); }), "/nomatch* not found");
}

TEST_F(Copy, OwnersModesAndTimesCanBeGiven) {
  from.file("d/f", "x", 04755, 3).directory("d/s", 0700, 3).symlink("d/l", "f");
  CopyRequest r = request("/d", "/new/place");
  r.owner = Owner{100, 200};
  r.timestamp = 1'500'000'000'123'456'789;
  run(r);
  EXPECT_EQ(to.look("new"), "d 0755 100:200");
  EXPECT_EQ(to.look("new/place"), "d 0755 100:200");
  EXPECT_EQ(to.look("new/place/f"), "f 4755 100:200 x") << "set-id bits are copied whoever the owner is";
  struct stat st{};
  ASSERT_EQ(::lstat((to.path() / "new/place/l").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 100U);
  EXPECT_EQ(st.st_mtim.tv_sec, 1'500'000'000);
  EXPECT_EQ(st.st_mtim.tv_nsec, 123'456'789);
  r = request("/d", "/parent/foo");
  r.mode = ModeChange::bits(0777);
  run(r);
  EXPECT_EQ(to.look("parent"), "d 0777 0:0");
  EXPECT_EQ(to.look("parent/foo/f"), "f 0777 3:3 x");
  EXPECT_EQ(to.look("parent/foo/s"), "d 0777 3:3");
}

TEST_F(Copy, TimesAttributesHolesAndLinksAreKept) {
  from.file("d/a", "same").hardlink("d/b", "d/a").directory("d/sub").file("d/sub/c", "c");
  const timespec times[2] = {{1000, 1}, {2000, 2}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (from.path() / "d/sub").c_str(), times, 0), 0);
  sys::set_xattr(from.fd(), "d", {"user.kept", "value"});
  sys::set_xattr(sys::open_file(from.path() / "d/a", O_RDONLY).get(), {"user.kept", "on file"});
  sys::set_xattr(sys::open_file(from.path() / "d/a", O_RDONLY).get(), {"trusted.overlay.opaque", "y"});
  const sys::Fd sparse = sys::open_file(from.path() / "d/sparse", O_WRONLY | O_CREAT);
  ASSERT_EQ(::ftruncate(sparse.get(), 1L << 33), 0);
  ASSERT_EQ(::pwrite(sparse.get(), "end", 3, (1L << 33) - 3), 3);
  run("/d", "/");
  struct stat a{}, b{}, sub{}, hole{};
  ASSERT_EQ(::lstat((to.path() / "a").c_str(), &a), 0);
  ASSERT_EQ(::lstat((to.path() / "b").c_str(), &b), 0);
  ASSERT_EQ(::lstat((to.path() / "sub").c_str(), &sub), 0);
  ASSERT_EQ(::lstat((to.path() / "sparse").c_str(), &hole), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
  EXPECT_EQ(sub.st_mtim.tv_sec, 2000);
  EXPECT_EQ(sub.st_mtim.tv_nsec, 2);
  EXPECT_EQ(hole.st_size, 1L << 33);
  EXPECT_LT(hole.st_blocks, 1024);
  const sys::Fd copied = sys::open_file(to.path() / "a", O_RDONLY);
  EXPECT_EQ(sys::find_xattr(copied.get(), "user.kept"), "on file");
  EXPECT_FALSE(sys::find_xattr(copied.get(), "trusted.overlay.opaque")) << "overlayfs would obey it";
}

TEST_F(Copy, DevicesAndPipesAreMadeAndNeverOpened) {
  from.directory("d");
  ASSERT_EQ(::mkfifo((from.path() / "d/pipe").c_str(), 0620), 0);
  ASSERT_EQ(::chmod((from.path() / "d/pipe").c_str(), 0620), 0);
  ASSERT_EQ(::mknod((from.path() / "d/zero").c_str(), S_IFCHR | 0600, makedev(1, 5)), 0);
  ASSERT_EQ(::mknod((from.path() / "d/socket").c_str(), S_IFSOCK | 0600, 0), 0);
  run("/d", "/");
  EXPECT_EQ(to.look("pipe"), "p 0620 0:0");
  EXPECT_EQ(to.look("zero"), "c 0600 0:0 1:5");
  EXPECT_EQ(to.look("socket"), "s 0600 0:0");
  ASSERT_EQ(::mknod((from.path() / "d/whiteout").c_str(), S_IFCHR | 0600, 0), 0);
  EXPECT_EQ(error_of([&] { run("/d", "/"); }), "/whiteout: character device 0:0 is not allowed");
}

TEST_F(Copy, PatternsLeaveOutAndTakeIn) {
  from.file("a.txt").file("a.png").file("d/b.txt").file("d/b.png").file("d/e/c.txt").file("z/only.png");
  CopyRequest r = request("/", "/x");
  r.exclude = {"**/*.png", "!d/b.png", "z"};
  run(r);
  std::vector<std::string> names;
  for (const auto& [name, look] : to.describe()) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"x", "x/a.txt", "x/d", "x/d/b.png", "x/d/b.txt", "x/d/e", "x/d/e/c.txt"}));

  from.directory("d", 0711, 4);
  r = request("/", "/parents");
  r.include = {"d/*/c.txt", "a.png"};
  run(r);
  names.clear();
  for (const auto& [name, look] : to.describe())
    if (name.starts_with("parents/")) names.push_back(name.substr(8));
  EXPECT_EQ(names, (std::vector<std::string>{"a.png", "d", "d/e", "d/e/c.txt"}));
  EXPECT_EQ(to.look("parents/d"), "d 0711 4:4") << "made for what it holds, with its source's looks";

  r.required = {"d/e/missing"};
  EXPECT_EQ(error_of([&] { run(r); }), "\"/d/e/missing\": not found");
}

TEST_F(Copy, AStopEndsIt) {
  from.file("a");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(error_of([&] { copy(from.fd(), to.fd(), request("/a", "/"), stop.get_token()); }), "context canceled");
}

TEST_F(Copy, MissingParentsAreMadeOnlyIfAsked) {
  from.file("a");
  CopyRequest r = request("/a", "/no/such/a");
  r.create_destination = false;
  EXPECT_EQ(error_of([&] { run(r); }), "failed to stat /no/such/a: no such file or directory");
}

TEST_F(Copy, SmallActionsWorkInsideOfTheTree) {
  to.symlink("link", "/../../real")
      .directory("real")
      .file("real/old", "old")
      .directory("rm/a/b")
      .file("rm/f1")
      .file("rm/f2");
  make_directory(to.fd(), "/link/x/y", 0700, true, {Owner{3, 4}, {}, {}});
  EXPECT_EQ(to.look("real/x"), "d 0700 3:4");
  make_directory(to.fd(), "/link/x", 0755, false, {});
  EXPECT_EQ(to.look("real/x"), "d 0700 3:4") << "what exists is left alone";
  EXPECT_NE(error_of([&] { make_directory(to.fd(), "/no/x", 0755, false, {}); }), "");
  make_file(to.fd(), "/link/old", 0600, "new", {});
  EXPECT_EQ(to.look("real/old"), "f 0600 0:0 new");
  make_symlink(to.fd(), "../anything", "/link/sym", {Owner{1, 1}, {}, {}});
  EXPECT_EQ(to.look("real/sym"), "l -> ../anything");
  remove_path(to.fd(), "/link", false, false);
  EXPECT_EQ(to.look("real"), "d 0755 0:0") << "a link goes, not what it leads to";
  remove_path(to.fd(), "/rm/f*", false, true);
  remove_path(to.fd(), "/rm/a", false, false);
  EXPECT_EQ(to.look("rm"), "d 0755 0:0");
  EXPECT_EQ(to.look("rm/f1") + to.look("rm/a"), "");
  EXPECT_EQ(error_of([&] { remove_path(to.fd(), "/gone", false, false); }), "stat /gone: no such file or directory");
  remove_path(to.fd(), "/gone", true, false);
  EXPECT_EQ(error_of([&] { remove_path(to.fd(), "/", true, false); }), "rm /: it is the root");
}

}  // namespace
}  // namespace gantry::buildops
