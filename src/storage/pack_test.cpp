#include "storage/pack.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "storage/test_support.hpp"
#include "storage/tree.hpp"
#include "sys/process.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

using test::describe_tree;
using test::pack_directory;
using test::TarBuilder;
using test::TemporaryDirectory;
using test::unpack_bytes;

/// One of everything.
std::string sample_tar() {
  TarEntry owned;
  owned.name = "etc/owned";
  owned.mode = 04711;
  owned.uid = 3'000'000;
  owned.gid = 70'000;
  owned.mtime = {-5, 0};
  owned.xattrs = {{"user.note", std::string("binary\0value", 12)}};
  TarEntry fifo;
  fifo.type = TarType::fifo;
  fifo.name = "fifo";
  fifo.mode = 0600;
  fifo.mtime = {77, 0};
  const std::string deep = std::string(120, 'a') + "/" + std::string(120, 'b');
  return TarBuilder()
      .directory("etc", 01777)
      .entry(owned, "content")
      .hardlink("etc/linked", "etc/owned")
      .symlink("long", std::string(300, 't'))
      .symlink("short", "etc")
      .device("null", 1, 3)
      .entry(fifo)
      .file("grüße", "utf-8")
      .file("latin\xe9", "bytes")
      .file("empty")
      .file("large", std::string(1'000'000, 'l'))
      .directory(std::string(120, 'a'))
      .directory(deep)
      .file(deep + "/" + std::string(120, 'c'), "deep")
      .finish();
}

TEST(Pack, UnpackedAgainGivesTheSameTree) {
  TemporaryDirectory first;
  unpack_bytes(first, sample_tar(), UnpackMode::tree);
  const std::string tar = pack_directory(first.path(), {});
  TemporaryDirectory second;
  unpack_bytes(second, tar, UnpackMode::tree);
  EXPECT_EQ(describe_tree(first.path()), describe_tree(second.path()));
  EXPECT_EQ(pack_directory(second.path(), {}), tar) << "the same tree gives the same bytes";
}

TEST(Pack, GnuTarReadsIt) {
  TemporaryDirectory first;
  unpack_bytes(first, sample_tar(), UnpackMode::tree);
  TemporaryDirectory out;
  sys::write_atomically(out / "a.tar", pack_directory(first.path(), {}));
  sys::make_directories(out / "x");
  sys::SpawnOptions options;
  options.argv = {
      "tar", "-xpf", (out / "a.tar").string(), "-C", (out / "x").string(), "--xattrs", "--xattrs-include=*"};
  options.env = {"PATH=/usr/bin:/bin"};
  const sys::Output result = sys::run(options, 60);
  EXPECT_EQ(result.exit_code, 0) << result.stderr_text;
  EXPECT_EQ(describe_tree(out / "x"), describe_tree(first.path()));
}

TEST(Pack, ReadsWhatGnuTarWrites) {
  TemporaryDirectory first;
  unpack_bytes(first, sample_tar(), UnpackMode::tree);
  for (const char* format : {"--format=gnu", "--format=posix"}) {
    TemporaryDirectory out;
    sys::SpawnOptions options;
    options.argv = {"tar", format, "-cf", (out / "a.tar").string(), "-C", first.path().string(), "."};
    if (std::string_view(format) == "--format=posix") options.argv.insert(options.argv.begin() + 2, "--xattrs");
    options.env = {"PATH=/usr/bin:/bin"};
    const sys::Output made = sys::run(options, 60);
    ASSERT_EQ(made.exit_code, 0) << made.stderr_text;
    TemporaryDirectory second;
    unpack_bytes(second, sys::read_file(out / "a.tar"), UnpackMode::tree);
    auto expected = describe_tree(first.path());
    if (std::string_view(format) == "--format=gnu")
      for (auto& [name, text] : expected)
        if (const std::size_t at = text.find(" user.note="); at != std::string::npos) text.resize(at);
    EXPECT_EQ(describe_tree(second.path()), expected) << format;
  }
}

TEST(Pack, NamesBeginWithThePrefix) {
  TemporaryDirectory root;
  unpack_bytes(root, TarBuilder().file("passwd", "x").finish(), UnpackMode::tree);
  PackOptions options;
  options.prefix = "etc";
  TemporaryDirectory out;
  unpack_bytes(out, pack_directory(root.path(), options), UnpackMode::tree);
  EXPECT_EQ(sys::read_file(out / "etc/passwd"), "x");
}

TEST(Pack, LayerModeWritesWhiteoutsInTheirPortableForm) {
  TemporaryDirectory upper;
  const std::string layer = TarBuilder()
                                .directory("d")
                                .file("d/.wh.gone")
                                .file(".wh.top")
                                .directory("o")
                                .file("o/.wh..wh..opq")
                                .file("o/x", "1")
                                .finish();
  unpack_bytes(upper, layer, UnpackMode::layer);
  PackOptions options;
  options.mode = PackMode::layer;
  const std::string packed = pack_directory(upper.path(), options);
  TemporaryDirectory names;
  unpack_bytes(names, packed, UnpackMode::tree);
  for (const char* name : {"d/.wh.gone", ".wh.top", "o/.wh..wh..opq", "o/x"})
    EXPECT_TRUE(describe_tree(names.path()).contains(name)) << name;
  TemporaryDirectory again;
  unpack_bytes(again, packed, UnpackMode::layer);
  EXPECT_TRUE(is_opaque(sys::open_file(again / "o", O_RDONLY).get()));
  EXPECT_EQ(pack_directory(again.path(), options), packed);
}

TEST(Pack, SparseFilesComeOutWholeWithoutReadingTheirHoles) {
  TemporaryDirectory root;
  const sys::Fd file = sys::open_file(root / "s", O_WRONLY | O_CREAT);
  ASSERT_EQ(::ftruncate(file.get(), 5'000'000), 0);
  ASSERT_EQ(::pwrite(file.get(), "data", 4, 2'000'000), 4);
  TemporaryDirectory out;
  unpack_bytes(out, pack_directory(root.path(), {}), UnpackMode::tree);
  EXPECT_EQ(sys::read_file(out / "s"), sys::read_file(root / "s"));
}

TEST(Pack, AMountBelowIsAnEmptyDirectoryUnlessAskedFor) {
  TemporaryDirectory root;
  sys::make_directories(root / "proc");
  ASSERT_EQ(::mount("proc", (root / "proc").c_str(), "proc", 0, nullptr), 0);
  TemporaryDirectory out;
  unpack_bytes(out, pack_directory(root.path(), {}), UnpackMode::tree);
  EXPECT_TRUE(sys::list_directory(out / "proc").empty());
}

TEST(Pack, TooDeepATreeIsAnErrorAndNoCrash) {
  TemporaryDirectory root;
  sys::Fd at = root.open();
  for (int i = 0; i < 1100; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), "d", 0755), 0);
    at = open_subdirectory(at.get(), "d");
  }
  EXPECT_NE(test::error_of([&] { pack_directory(root.path(), {}); }).find("too deeply"), std::string::npos);
}

}  // namespace
}  // namespace gantry::storage
