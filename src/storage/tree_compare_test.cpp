#include "storage/tree_compare.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "storage/test_support.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage::test {
namespace {

std::string make_tar() {
  TarBuilder tar;
  tar.directory("etc").file("etc/passwd", "root:x:0:0").file("etc/group", "root:x:0:").symlink("etc/link", "passwd");
  tar.hardlink("etc/other", "etc/passwd");
  return tar.finish();
}

/// Two equal trees, of which `change` alters one.
std::vector<std::string> differences(const std::function<void(const sys::Path&)>& change, bool contents = false) {
  TemporaryDirectory found, wanted;
  unpack_bytes(found, make_tar(), UnpackMode::layer);
  unpack_bytes(wanted, make_tar(), UnpackMode::layer);
  const std::string before = fingerprint_tree(found.open().get());
  EXPECT_EQ(before, fingerprint_tree(wanted.open().get()));
  EXPECT_TRUE(compare_trees(found.open().get(), wanted.open().get(), true, 10).empty());
  change(found.path());
  auto out = compare_trees(found.open().get(), wanted.open().get(), contents, 10);
  EXPECT_EQ(fingerprint_tree(found.open().get()) != before, !out.empty() && !contents);
  return out;
}

using Lines = std::vector<std::string>;

TEST(TreeCompare, SeesEveryKindOfDamage) {
  EXPECT_EQ(differences([](const sys::Path& p) { ::unlink((p / "etc/group").c_str()); }),
            Lines{"\"etc/group\": is missing"});
  EXPECT_EQ(differences([](const sys::Path& p) { sys::write_atomically(p / "etc/new", "x"); }),
            Lines{"\"etc/new\": does not belong there"});
  EXPECT_EQ(differences([](const sys::Path& p) { ::chmod((p / "etc/group").c_str(), 0600); }),
            Lines{"\"etc/group\": mode 600 instead of 644"});
  EXPECT_EQ(differences([](const sys::Path& p) { EXPECT_EQ(::lchown((p / "etc/link").c_str(), 7, 8), 0); }),
            Lines{"\"etc/link\": owner 7:8 instead of 0:0"});
  EXPECT_EQ(differences([](const sys::Path& p) { std::filesystem::resize_file(p / "etc/group", 1); }),
            Lines{"\"etc/group\": 1 bytes instead of 9"});
  EXPECT_EQ(differences([](const sys::Path& p) {
              const sys::Fd fd = sys::open_file(p / "etc/group", O_RDWR);
              sys::set_xattr(fd.get(), {"user.x", "y"});
            }),
            Lines{"\"etc/group\": its extended attributes are others"});
}

TEST(TreeCompare, SeesChangedContentsOnRequestOnly) {
  const auto flip = [](const sys::Path& p) {
    const sys::Fd fd = sys::open_file(p / "etc/group", O_WRONLY);
    ASSERT_EQ(::pwrite(fd.get(), "X", 1, 3), 1);
  };
  EXPECT_EQ(differences(flip), Lines{});
  EXPECT_EQ(differences(flip, true), Lines{"\"etc/group\": its content is another"});
}

}  // namespace
}  // namespace gantry::storage::test
