#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "sys/file.hpp"

namespace gantry::sys {
namespace {

class RemoveTree : public testing::Test {
 protected:
  RemoveTree() {
    std::string name = "/tmp/gantry-remove-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw Error::from_errno(errno, "mkdtemp");
    root_ = name;
  }
  ~RemoveTree() override { remove_tree(root_); }
  bool is_there(const Path& path) const {
    struct stat st{};
    return ::lstat(path.c_str(), &st) == 0;
  }
  Path root_;
};

TEST_F(RemoveTree, RemovesEverythingAndTellsHowMuch) {
  make_directories(root_ / "t/a/b");
  write_atomically(root_ / "t/a/f", std::string(100'000, 'x'), 0644, false);
  EXPECT_EQ(::link((root_ / "t/a/f").c_str(), (root_ / "t/g").c_str()), 0);
  EXPECT_GE(remove_tree(root_ / "t"), 100'000u);
  EXPECT_FALSE(is_there(root_ / "t"));
  EXPECT_EQ(remove_tree(root_ / "t"), 0u);
}

TEST_F(RemoveTree, NeverFollowsLinks) {
  make_directories(root_ / "kept");
  write_atomically(root_ / "kept/f", "x", 0644, false);
  make_directories(root_ / "t");
  ASSERT_EQ(::symlink("../kept", (root_ / "t/link").c_str()), 0);
  remove_tree(root_ / "t");
  EXPECT_TRUE(is_there(root_ / "kept/f"));
  ASSERT_EQ(::symlink("kept", (root_ / "alone").c_str()), 0);
  remove_tree(root_ / "alone");
  EXPECT_FALSE(is_there(root_ / "alone"));
  EXPECT_TRUE(is_there(root_ / "kept/f"));
}

TEST_F(RemoveTree, RemovesTreesThatAreDeeperThanDescriptorsAndStackGo) {
  make_directories(root_ / "t");
  Fd at = open_file(root_ / "t", O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < 600; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), "deep", 0755), 0);
    at = Fd(::openat(at.get(), "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at);
  }
  at.reset();
  EXPECT_EQ(tree_size(root_ / "t"), 0u);
  remove_tree(root_ / "t");
  EXPECT_FALSE(is_there(root_ / "t"));
}

TEST_F(RemoveTree, CountsTheSizesOfFilesAndLinkedOnesOnce) {
  make_directories(root_ / "t/sub");
  write_atomically(root_ / "t/sub/f", std::string(5, 'x'));
  ASSERT_EQ(::link((root_ / "t/sub/f").c_str(), (root_ / "t/again").c_str()), 0);
  write_atomically(root_ / "t/g", std::string(7, 'x'));
  EXPECT_EQ(tree_size(root_ / "t"), 12u);
  EXPECT_EQ(remove_tree(root_ / "t"), 12u);
}

}  // namespace
}  // namespace gantry::sys
