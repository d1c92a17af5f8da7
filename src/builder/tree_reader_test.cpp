#include "builder/tree_reader.hpp"

#include <filesystem>
#include <fstream>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "buildcache/snapshots.hpp"
#include "session/go_mode.hpp"
#include "sys/file.hpp"

namespace gantry::builder {
namespace {

namespace fs = std::filesystem;

class Directory final : public buildcache::View {
 public:
  Directory() { fs::create_directories(path_ / "d"); }
  ~Directory() override { sys::remove_tree(path_); }
  const sys::Path& path() const override { return path_; }

 private:
  const sys::Path path_ = fs::temp_directory_path() / ("gantry-tree-reader-" + random_id().substr(0, 12));
};

TEST(TreeReader, ReadsFilesAndPartsOfThem) {
  const Directory tree;
  std::ofstream(tree.path() / "d/f") << "0123456789";
  EXPECT_EQ(read_tree_file(tree, "/d/f", 0, 0, 100), "0123456789");
  EXPECT_EQ(read_tree_file(tree, "d/f", 2, 3, 100), "234");
  EXPECT_EQ(read_tree_file(tree, "d/f", 8, 100, 100), "89");
  EXPECT_EQ(read_tree_file(tree, "d/f", 50, 1, 100), "");
  EXPECT_EQ(read_tree_file(tree, "d/nothing", 0, 0, 100), std::nullopt);
  EXPECT_EQ(read_tree_file(tree, "d/f/x", 0, 0, 100), std::nullopt);
  EXPECT_THROW(read_tree_file(tree, "d/f", 0, 0, 9), Error);
  EXPECT_THROW(read_tree_file(tree, "d/f", -1, 1, 100), Error);
  EXPECT_THROW(read_tree_file(tree, "d", 0, 0, 100), Error);
}

TEST(TreeReader, StaysInTheTree) {
  const Directory tree;
  fs::create_symlink("/etc/passwd", tree.path() / "out");
  fs::create_symlink("../../../../../etc/passwd", tree.path() / "up");
  EXPECT_EQ(read_tree_file(tree, "/out", 0, 0, 1 << 20), std::nullopt);
  EXPECT_EQ(read_tree_file(tree, "/up", 0, 0, 1 << 20), std::nullopt);
  EXPECT_EQ(read_tree_file(tree, "/../../etc/passwd", 0, 0, 1 << 20), std::nullopt);
}

TEST(TreeReader, DoesNotWaitForFifos) {
  const Directory tree;
  ASSERT_EQ(::mkfifo((tree.path() / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(read_tree_file(tree, "pipe", 0, 0, 100), Error);
}

TEST(TreeReader, ListsDirectories) {
  const Directory tree;
  std::ofstream(tree.path() / "d/b.txt") << "b";
  std::ofstream(tree.path() / "d/a.txt") << "aa";
  fs::create_symlink("a.txt", tree.path() / "d/link");
  const auto all = list_tree_directory(tree, "/d", "");
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].path(), "a.txt");
  EXPECT_EQ(all[0].size(), 2);
  EXPECT_EQ(all[2].linkname(), "a.txt");
  EXPECT_EQ(list_tree_directory(tree, "/d", "*.txt").size(), 2U);
  EXPECT_THROW(list_tree_directory(tree, "/none", ""), Error);
  EXPECT_THROW(list_tree_directory(tree, "/d", "["), Error);
  EXPECT_EQ(stat_tree_file(tree, "d").path(), "d");
  EXPECT_NE(stat_tree_file(tree, "d").mode() & session::kGoDirectory, 0U);
  EXPECT_EQ(stat_tree_file(tree, "d/link").size(), 2);
  EXPECT_THROW(stat_tree_file(tree, "d/none"), Error);
}

}  // namespace
}  // namespace gantry::builder
