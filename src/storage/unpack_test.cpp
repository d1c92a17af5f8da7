#include "storage/unpack.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "storage/test_support.hpp"
#include "storage/tree.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

using test::error_of;
using test::TarBuilder;
using test::TemporaryDirectory;
using test::unpack_bytes;

struct stat stat_of(const sys::Path& path) {
  struct stat st{};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st;
}

bool is_there(const sys::Path& path) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0;
}

TEST(Unpack, RestoresEveryKindOfEntry) {
  TemporaryDirectory root;
  TarEntry special;
  special.name = "bin/tool";
  special.mode = 06755;
  special.uid = 1000;
  special.gid = 100;
  special.mtime = {1234567890, 0};
  const std::string tar = TarBuilder()
                              .directory("bin", 0750)
                              .entry(special, "#!tool")
                              .symlink("sh", "/bin/tool")
                              .hardlink("bin/other", "bin/tool")
                              .device("null", 1, 3)
                              .finish();
  const UnpackResult result = unpack_bytes(root, tar, UnpackMode::layer);
  EXPECT_EQ(result.entries, 5u);
  EXPECT_EQ(result.bytes, 6u);
  EXPECT_EQ(stat_of(root / "bin").st_mode, S_IFDIR | 0750u);
  EXPECT_EQ(stat_of(root / "bin").st_mtim.tv_sec, 1000) << "set after its files were written";
  const struct stat tool = stat_of(root / "bin/tool");
  EXPECT_EQ(tool.st_mode, S_IFREG | 06755u);
  EXPECT_EQ(tool.st_uid, 1000u);
  EXPECT_EQ(tool.st_gid, 100u);
  EXPECT_EQ(tool.st_mtim.tv_sec, 1234567890);
  EXPECT_EQ(tool.st_nlink, 2u);
  EXPECT_EQ(stat_of(root / "null").st_rdev, makedev(1, 3));
  EXPECT_EQ(read_link(root.open().get(), "sh"), "/bin/tool");
}

TEST(Unpack, KeepsNanosecondsAndLargeNumbersOfPaxHeaders) {
  TemporaryDirectory root;
  const std::string tar = TarBuilder().pax({"mtime=1700000000.123456789", "uid=3000000"}).file("f").finish();
  unpack_bytes(root, tar, UnpackMode::layer);
  EXPECT_EQ(stat_of(root / "f").st_mtim.tv_nsec, 123456789);
  EXPECT_EQ(stat_of(root / "f").st_uid, 3000000u);
}

TEST(Unpack, NamesAreBytes) {
  TemporaryDirectory root;
  const std::string long_name = std::string(150, 'd') + "/" + std::string(200, 'f');
  const std::string tar = TarBuilder()
                              .file("grüße")
                              .file("latin\xe9")
                              .file("line\nbreak")
                              .directory(std::string(150, 'd'))
                              .file(long_name, "x")
                              .finish();
  unpack_bytes(root, tar, UnpackMode::layer);
  for (const std::string& name :
       {std::string("grüße"), std::string("latin\xe9"), std::string("line\nbreak"), long_name})
    EXPECT_TRUE(is_there(root / name)) << name;
}

TEST(Unpack, AcceptsAnEmptyStreamAndAnEmptyArchive) {
  TemporaryDirectory root;
  EXPECT_EQ(unpack_bytes(root, "", UnpackMode::layer).entries, 0u);
  EXPECT_EQ(unpack_bytes(root, TarBuilder().finish(), UnpackMode::layer).entries, 0u);
  EXPECT_EQ(unpack_bytes(root, TarBuilder().finish() + std::string(100'000, '\0'), UnpackMode::layer).entries, 0u);
}

TEST(Unpack, TakesAbsoluteNamesAsRelativeToTheRoot) {
  TemporaryDirectory root;
  unpack_bytes(root, TarBuilder().file("/abs", "x").file("./dot/../a//b", "y").finish(), UnpackMode::layer);
  EXPECT_EQ(sys::read_file(root / "abs"), "x");
  EXPECT_EQ(sys::read_file(root / "a/b"), "y");
}

TEST(Unpack, RefusesNamesThatClimbOut) {
  for (const char* name : {"../escape", "a/../../escape", "/../escape", "./.././escape"}) {
    TemporaryDirectory outer;
    sys::make_directories(outer / "root");
    const sys::Fd root = sys::open_file(outer / "root", O_RDONLY | O_DIRECTORY);
    const std::string message = error_of(
        [&] { unpack(root.get(), *make_string_source(TarBuilder().file(name, "x").finish()), UnpackOptions{}); });
    EXPECT_NE(message.find(name), std::string::npos) << message;
    EXPECT_NE(message.find("leaves the root"), std::string::npos) << message;
    EXPECT_FALSE(is_there(outer / "escape"));
  }
}

TEST(Unpack, SymbolicLinksLeadToPlacesInsideOnly) {
  for (const UnpackMode mode : {UnpackMode::layer, UnpackMode::tree}) {
    TemporaryDirectory root;
    TemporaryDirectory victim;
    const std::string up = "../../../../../../../.." + victim.path().string();
    unpack_bytes(root,
                 TarBuilder()
                     .symlink("abs", victim.path().string())
                     .file("abs/one", "1")
                     .symlink("up", up)
                     .file("up/two", "2")
                     .symlink("top", "/")
                     .file("top/three", "3")
                     .finish(),
                 mode);
    EXPECT_TRUE(sys::list_directory(victim.path()).empty());
    EXPECT_EQ(sys::read_file(sys::Path(root.path().string() + victim.path().string()) / "one"), "1");
    EXPECT_EQ(sys::read_file(sys::Path(root.path().string() + victim.path().string()) / "two"), "2");
    EXPECT_EQ(sys::read_file(root / "three"), "3");
  }
}

TEST(Unpack, AFileReplacesALinkInsteadOfWritingThroughIt) {
  TemporaryDirectory root;
  TemporaryDirectory victim;
  sys::write_atomically(victim / "shadow", "secret");
  unpack_bytes(root, TarBuilder().symlink("f", (victim / "shadow").string()).file("f", "mine").finish(),
               UnpackMode::tree);
  EXPECT_EQ(sys::read_file(victim / "shadow"), "secret");
  EXPECT_EQ(sys::read_file(root / "f"), "mine");
}

TEST(Unpack, RefusesLoopsOfLinks) {
  TemporaryDirectory root;
  const std::string tar = TarBuilder().symlink("a", "b").symlink("b", "a").file("a/x", "1").finish();
  EXPECT_NE(error_of([&] { unpack_bytes(root, tar, UnpackMode::layer); }).find("symbolic links"), std::string::npos);
}

TEST(Unpack, HardLinksStayInside) {
  TemporaryDirectory victim;
  sys::write_atomically(victim / "shadow", "secret");
  const std::string outside = (victim / "shadow").string();
  {
    TemporaryDirectory root;
    const std::string tar = TarBuilder().hardlink("l", "../../../../.." + outside).finish();
    EXPECT_NE(error_of([&] { unpack_bytes(root, tar, UnpackMode::tree); }).find("leaves the root"), std::string::npos);
  }
  {
    TemporaryDirectory root;
    const std::string tar = TarBuilder().hardlink("l", outside).finish();
    EXPECT_NE(error_of([&] { unpack_bytes(root, tar, UnpackMode::tree); }).find("hard link"), std::string::npos);
  }
  {
    TemporaryDirectory root;
    const std::string tar = TarBuilder().symlink("s", outside).hardlink("l", "s").finish();
    unpack_bytes(root, tar, UnpackMode::tree);
    EXPECT_TRUE(S_ISLNK(stat_of(root / "l").st_mode)) << "the link itself, not what it names";
  }
  EXPECT_EQ(stat_of(victim / "shadow").st_nlink, 1u);
}

TEST(Unpack, RefusesHardLinksToDirectoriesAndToNothing) {
  for (const char* target : {"d", "none", "", ".", "/"}) {
    TemporaryDirectory root;
    const std::string tar = TarBuilder().directory("d").hardlink("l", target).finish();
    EXPECT_THROW(unpack_bytes(root, tar, UnpackMode::layer), Error) << target;
  }
}

TEST(Unpack, AHardLinkToItselfChangesNothing) {
  TemporaryDirectory root;
  unpack_bytes(root, TarBuilder().file("f", "x").hardlink("f", "f").finish(), UnpackMode::layer);
  EXPECT_EQ(sys::read_file(root / "f"), "x");
}

TEST(Unpack, LaterEntriesReplaceEarlierOnes) {
  TemporaryDirectory root;
  const UnpackResult result = unpack_bytes(root,
                                           TarBuilder()
                                               .file("a", "old")
                                               .file("a", "new!")
                                               .directory("d")
                                               .file("d/x", "1")
                                               .file("d", "now a file")
                                               .file("e", "file")
                                               .directory("e")
                                               .file("e/y", "2")
                                               .directory("e", 0700)
                                               .finish(),
                                           UnpackMode::layer);
  EXPECT_EQ(sys::read_file(root / "a"), "new!");
  EXPECT_EQ(sys::read_file(root / "d"), "now a file");
  EXPECT_EQ(sys::read_file(root / "e/y"), "2");
  EXPECT_EQ(stat_of(root / "e").st_mode & 07777, 0700u);
  EXPECT_EQ(result.entries, 4u) << "a, d, e, e/y";
  EXPECT_EQ(result.bytes, 4u + 10u + 1u);
}

TEST(Unpack, CanRefuseToReplaceADirectoryByAFile) {
  TemporaryDirectory root;
  sys::make_directories(root / "x");
  sys::write_atomically(root / "y", "");
  UnpackOptions options;
  options.no_overwrite_dir_non_dir = true;
  EXPECT_EQ(error_of([&] { unpack(root.open().get(), *make_string_source(TarBuilder().file("x").finish()), options); }),
            "cannot overwrite directory \"/x\" with non-directory \"/x\"");
  EXPECT_EQ(
      error_of([&] { unpack(root.open().get(), *make_string_source(TarBuilder().directory("y").finish()), options); }),
      "cannot overwrite non-directory \"/y\" with directory \"/y\"");
}

TEST(Unpack, RefusesIdsThatWouldWrapToRoot) {
  for (const char* record :
       {"uid=4294967296", "gid=4294967296", "uid=4294967295", "uid=-1", "uid=18446744073709551616"}) {
    TemporaryDirectory root;
    const std::string tar = TarBuilder().pax({record}).file("f").finish();
    EXPECT_THROW(unpack_bytes(root, tar, UnpackMode::layer), Error) << record;
    EXPECT_FALSE(is_there(root / "f"));
  }
}

TEST(Unpack, KeepsAllowedExtendedAttributesOnly) {
  TemporaryDirectory root;
  const std::string capability("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 20);
  unpack_bytes(root,
               TarBuilder()
                   .pax({"SCHILY.xattr.user.note=hi", "SCHILY.xattr.trusted.overlay.opaque=y",
                         "SCHILY.xattr.trusted.overlay.redirect=/etc", "SCHILY.xattr.user.overlay.opaque=y",
                         "SCHILY.xattr.security.selinux=x", "SCHILY.xattr.security.capability=" + capability})
                   .file("f")
                   .pax({"SCHILY.xattr.trusted.overlay.opaque=y"})
                   .directory("d")
                   .finish(),
               UnpackMode::layer);
  const auto attributes = sys::list_xattrs(root.open().get(), "f");
  ASSERT_EQ(attributes.size(), 2u);
  EXPECT_EQ(attributes[0].name, "security.capability");
  EXPECT_EQ(attributes[0].value, capability);
  EXPECT_EQ(attributes[1].name, "user.note");
  EXPECT_TRUE(sys::list_xattrs(root.open().get(), "d").empty());
}

TEST(Unpack, CapabilitiesLoseTheirUserNamespace) {
  TemporaryDirectory root;
  std::string version3(
      "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00", 24);
  unpack_bytes(root, TarBuilder().pax({"SCHILY.xattr.security.capability=" + version3}).file("f").finish(),
               UnpackMode::layer);
  const auto value = sys::find_xattr(root.open().get(), "f", "security.capability");
  ASSERT_TRUE(value);
  EXPECT_EQ(value->size(), 20u);
}

TEST(Unpack, LimitsExtendedAttributes) {
  TemporaryDirectory root;
  const std::string tar = TarBuilder().pax({"SCHILY.xattr.user.big=" + std::string(70'000, 'x')}).file("f").finish();
  EXPECT_NE(error_of([&] { unpack_bytes(root, tar, UnpackMode::layer); }).find("limit of 65536 bytes"),
            std::string::npos);
}

TEST(Unpack, EveryBudgetNamesItsLimit) {
  struct Case {
    UnpackBudget budget;
    std::string tar;
    std::string text;
  };
  std::vector<Case> cases(5);
  cases[0].budget.bytes = 1000;
  cases[0].tar = TarBuilder().file("a", std::string(600, 'x')).file("b", std::string(600, 'x')).finish();
  cases[0].text = "limit of 1000 bytes";
  cases[1].budget.entries = 2;
  cases[1].tar = TarBuilder().file("a").file("b").file("c").finish();
  cases[1].text = "more than 2 entries";
  cases[2].budget.depth = 3;
  cases[2].tar = TarBuilder().file("a/b/c/d").finish();
  cases[2].text = "deeper than the limit of 3";
  cases[3].tar = TarBuilder().file(std::string(256, 'n')).finish();
  cases[3].text = "limit of 255 bytes";
  cases[4].tar = TarBuilder().pax({"path=" + std::string(5000, 'p')}).file("f").finish();
  cases[4].text = "limit of 4096 bytes";
  for (const Case& c : cases) {
    TemporaryDirectory root;
    const std::string message = error_of([&] { unpack_bytes(root, c.tar, UnpackMode::layer, c.budget); });
    EXPECT_NE(message.find(c.text), std::string::npos) << message;
    EXPECT_LT(message.size(), 600u);
  }
}

TEST(Unpack, RefusesDamagedHeaders) {
  std::string bad_checksum = TarBuilder().file("f", "x").finish();
  bad_checksum[100] = '7';
  std::string negative_size = TarBuilder().pax({"size=-1"}).file("f", "x").finish();
  std::string far_future = TarBuilder().pax({"mtime=1000000000000000000"}).file("f").finish();
  for (const std::string& tar : {bad_checksum, negative_size, far_future, std::string(2000, 'x')}) {
    TemporaryDirectory root;
    EXPECT_THROW(unpack_bytes(root, tar, UnpackMode::layer), Error);
  }
}

TEST(Unpack, ACutArchiveLeavesNoPartOfTheFileThatWasCut) {
  TemporaryDirectory root;
  std::string tar = TarBuilder().file("whole", "x").file("big", std::string(100'000, 'b')).finish();
  tar.resize(50'000);
  EXPECT_NE(error_of([&] { unpack_bytes(root, tar, UnpackMode::tree); }).find("unexpected EOF"), std::string::npos);
  EXPECT_TRUE(is_there(root / "whole"));
  EXPECT_FALSE(is_there(root / "big"));
}

TEST(Unpack, KeepsHolesOfSparseFiles) {
  TemporaryDirectory root;
  // GNU.sparse 1.0: the map is the beginning of the content.
  const std::string map = "1\n1048576\n4\n";
  const std::string content = map + std::string(512 - map.size(), '\0') + "data";
  const std::string tar =
      TarBuilder()
          .pax({"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "GNU.sparse.realsize=10485760"})
          .file("GNUSparseFile.0/s", content)
          .finish();
  unpack_bytes(root, tar, UnpackMode::layer);
  const struct stat st = stat_of(root / "s");
  EXPECT_EQ(st.st_size, 10485760);
  EXPECT_LT(st.st_blocks * 512, 100'000);
  const std::string bytes = sys::read_file(root / "s");
  EXPECT_EQ(bytes.substr(1048576, 4), "data");
  EXPECT_EQ(bytes.substr(0, 10), std::string(10, '\0'));
}

TEST(Unpack, CountsHolesAgainstTheBudget) {
  TemporaryDirectory root;
  const std::string map = "1\n0\n4\n";
  const std::string content = map + std::string(512 - map.size(), '\0') + "data";
  const std::string tar = TarBuilder()
                              .pax({"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s",
                                    "GNU.sparse.realsize=9000000000000000000"})
                              .file("GNUSparseFile.0/s", content)
                              .finish();
  EXPECT_THROW(unpack_bytes(root, tar, UnpackMode::layer), Error);
}

TEST(Unpack, ImplicitDirectoriesAreMadeAndReported) {
  TemporaryDirectory root;
  const UnpackResult result = unpack_bytes(root, TarBuilder().file("a/b/c", "x").finish(), UnpackMode::layer);
  EXPECT_EQ(result.implicit, (std::vector<std::string>{"a", "a/b"}));
  EXPECT_EQ(result.entries, 3u);
  EXPECT_EQ(stat_of(root / "a").st_mode, S_IFDIR | 0755u);
}

TEST(Unpack, MakesTheTargetOfALinkThatLeadsNowhereYet) {
  TemporaryDirectory root;
  unpack_bytes(root, TarBuilder().symlink("var", "usr/real/var").file("var/log/x", "1").finish(), UnpackMode::layer);
  EXPECT_EQ(sys::read_file(root / "usr/real/var/log/x"), "1");
}

TEST(Unpack, WhiteoutsOfLayersBecomeOverlayfsOnes) {
  TemporaryDirectory root;
  unpack_bytes(root,
               TarBuilder()
                   .directory("d")
                   .file("d/.wh.gone")
                   .file(".wh.dir")
                   .directory("dir")  // deleted below and made anew
                   .directory("o")
                   .file("o/.wh..wh..opq")
                   .file("o/mine", "x")
                   .file("kept", "y")
                   .file(".wh.kept")
                   .file(".wh..wh.plnk")
                   .finish(),
               UnpackMode::layer);
  EXPECT_TRUE(is_whiteout(stat_of(root / "d/gone")));
  EXPECT_TRUE(is_opaque(sys::open_file(root / "dir", O_RDONLY).get()));
  EXPECT_TRUE(is_opaque(sys::open_file(root / "o", O_RDONLY).get()));
  EXPECT_EQ(sys::read_file(root / "o/mine"), "x");
  EXPECT_EQ(sys::read_file(root / "kept"), "y") << "a whiteout is about the layers below";
  EXPECT_FALSE(is_there(root / ".wh..wh.plnk"));
  EXPECT_FALSE(is_there(root / ".wh.kept"));
}

TEST(Unpack, RefusesStrangeWhiteouts) {
  for (const char* name : {".wh.", "d/.wh.", ".wh...", ".wh..", ".wh.x/y"}) {
    TemporaryDirectory root;
    EXPECT_THROW(unpack_bytes(root, TarBuilder().file(name).finish(), UnpackMode::layer), Error) << name;
  }
  TemporaryDirectory root;
  const std::string tar = TarBuilder().file(".wh.x").hardlink("y", "x").finish();
  EXPECT_THROW(unpack_bytes(root, tar, UnpackMode::layer), Error) << "a link to a whiteout";
}

TEST(Unpack, OutsideOfLayersWhiteoutNamesAreOrdinaryAndRawWhiteoutsRefused) {
  TemporaryDirectory root;
  unpack_bytes(root, TarBuilder().file(".wh.x", "text").finish(), UnpackMode::tree);
  EXPECT_EQ(sys::read_file(root / ".wh.x"), "text");
  EXPECT_THROW(unpack_bytes(root, TarBuilder().device("w", 0, 0).finish(), UnpackMode::tree), Error);
}

TEST(Unpack, CanGiveEverythingToOneOwner) {
  TemporaryDirectory root;
  UnpackOptions options;
  options.uid = 7;
  options.gid = 8;
  unpack(root.open().get(), *make_string_source(TarBuilder().file("f").symlink("s", "f").directory("d").finish()),
         options);
  for (const char* name : {"f", "s", "d"}) {
    EXPECT_EQ(stat_of(root / name).st_uid, 7u);
    EXPECT_EQ(stat_of(root / name).st_gid, 8u);
  }
}

TEST(Unpack, TheEntryOfTheRootItselfIsIgnored) {
  TemporaryDirectory root;
  unpack_bytes(root, TarBuilder().directory(".", 0700).file("./f", "x").finish(), UnpackMode::layer);
  EXPECT_EQ(stat_of(root.path()).st_mode & 07777, 0755u);
}

}  // namespace
}  // namespace gantry::storage
