#include "engine/container_tree.hpp"

#include <cstdlib>
#include <fstream>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "storage/root_access.hpp"
#include "sys/mount.hpp"

namespace gantry::engine {
namespace {

class ContainerTreeTest : public testing::Test {
 protected:
  ContainerTreeTest() {
    char directory[] = "/tmp/gantry-tree-test-XXXXXX";
    if (::mkdtemp(directory) == nullptr) std::abort();
    base_ = directory;
    for (const char* name : {"rootfs", "volume", "anchor"}) sys::make_directories(base_ / name);
    sys::mount_classic("tmpfs", base_ / "rootfs", "tmpfs", 0, "");
    sys::make_directories(base_ / "rootfs/etc");
    write(base_ / "rootfs/etc/passwd", "root:x:0:0");
    write(base_ / "volume/inside", "volume");
    write(base_ / "hosts", "127.0.0.1 localhost");
    plan_.container_id = std::string(64, 'a');
    plan_.rootfs = base_ / "rootfs";
    plan_.anchor = base_ / "anchor";
    plan_.files.push_back({base_ / "hosts", "/etc/hosts"});
    plan_.files.push_back({base_ / "missing", "/etc/hostname"});
  }
  ~ContainerTreeTest() override {
    sys::unmount_all(base_);
    sys::remove_tree(base_);
  }

  static void write(const sys::Path& path, const std::string& text) { std::ofstream(path) << text; }
  volume::MountPoint bind(const std::string& source, const std::string& destination, bool rw = true) const {
    volume::MountPoint mount;
    mount.type = volume::MountType::bind;
    mount.source = (base_ / source).string();
    mount.destination = destination;
    mount.rw = rw;
    return mount;
  }
  static std::string content(const ContainerTree& tree, const std::string& path) {
    return storage::read_file_in_root(tree.root(), path).value_or("(none)");
  }
  static std::string reason(const ContainerTree& tree, const std::string& path) {
    const sys::Fd directory = sys::open_in_root(tree.root(), path, O_PATH | O_DIRECTORY);
    return read_only_reason(tree.root(), directory.get());
  }

  sys::Path base_;
  TreePlan plan_;
};

TEST_F(ContainerTreeTest, ShowsTheRootWithItsMountsOnTop) {
  plan_.mounts.push_back(bind("volume", "/data/deep"));
  const ContainerTree tree = ContainerTree::open_blocking(plan_);
  EXPECT_EQ(content(tree, "/etc/passwd"), "root:x:0:0");
  EXPECT_EQ(content(tree, "/etc/hosts"), "127.0.0.1 localhost");
  EXPECT_EQ(content(tree, "/etc/hostname"), "(none)");
  EXPECT_EQ(content(tree, "/data/deep/inside"), "volume");
  EXPECT_EQ(content(tree, "/data/../../../../etc/passwd"), "root:x:0:0");
}

TEST_F(ContainerTreeTest, LeavesNoMountOnTheHost) {
  const std::size_t before = sys::list_mounts().size();
  plan_.mounts.push_back(bind("volume", "/data"));
  {
    const ContainerTree tree = ContainerTree::open_blocking(plan_);
    EXPECT_EQ(sys::list_mounts().size(), before);
  }
  EXPECT_EQ(sys::list_mounts().size(), before);
  // Nothing keeps the root busy any more.
  EXPECT_TRUE(sys::unmount(base_ / "rootfs", sys::Unmount::now));
}

TEST_F(ContainerTreeTest, WhatIsWrittenIsInTheContainersFiles) {
  plan_.mounts.push_back(bind("volume", "/data"));
  const ContainerTree tree = ContainerTree::open_blocking(plan_);
  storage::make_directory_in_root(tree.root(), "/new", 0, 0);
  storage::make_directory_in_root(tree.root(), "/data/new", 0, 0);
  EXPECT_TRUE(std::filesystem::is_directory(base_ / "rootfs/new"));
  EXPECT_TRUE(std::filesystem::is_directory(base_ / "volume/new"));
}

TEST_F(ContainerTreeTest, ALinkInTheWayOfAMountStaysInside) {
  sys::make_directories(base_ / "outside");
  std::filesystem::create_symlink(base_ / "outside", base_ / "rootfs/data");
  plan_.mounts.push_back(bind("volume", "/data"));
  const ContainerTree tree = ContainerTree::open_blocking(plan_);
  EXPECT_EQ(content(tree, "/data/inside"), "volume");
  EXPECT_TRUE(std::filesystem::is_empty(base_ / "outside"));
}

TEST_F(ContainerTreeTest, TellsWhatIsReadOnly) {
  plan_.read_only_root = true;
  plan_.mounts.push_back(bind("volume", "/data"));
  plan_.mounts.push_back(bind("volume", "/frozen", false));
  const ContainerTree tree = ContainerTree::open_blocking(plan_);
  EXPECT_EQ(reason(tree, "/etc"), "container rootfs is marked read-only");
  EXPECT_EQ(reason(tree, "/data"), "");
  EXPECT_EQ(reason(tree, "/frozen"), "mounted volume is marked read-only");
  EXPECT_THROW(storage::make_directory_in_root(tree.root(), "/new", 0, 0), Error);
  EXPECT_THROW(storage::make_directory_in_root(tree.root(), "/frozen/new", 0, 0), Error);
}

TEST_F(ContainerTreeTest, AProcessOfSomebodyElseIsNotAsked) {
  volume::MountPoint mount;
  mount.type = volume::MountType::tmpfs;
  mount.destination = "/etc";
  plan_.mounts.push_back(mount);
  plan_.init_pid = ::getpid();
  const ContainerTree tree = ContainerTree::open_blocking(plan_);
  EXPECT_EQ(content(tree, "/etc/passwd"), "root:x:0:0");
}

TEST_F(ContainerTreeTest, NamesTheMountThatFails) {
  plan_.mounts.push_back(bind("nowhere", "/data"));
  try {
    ContainerTree::open_blocking(plan_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("nowhere"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace gantry::engine
