#include "sys/mount.hpp"

#include <algorithm>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::sys {
namespace {

/// Runs each test on a thread with a mount namespace of its own, which goes with the thread.
class MountTest : public testing::Test {
 protected:
  template <class F>
  void in_private_namespace(F body) {
    std::thread thread([&] {
      // A thread shares its file system view until it has its own (unshare(2), CLONE_FS).
      ASSERT_EQ(::unshare(CLONE_FS | CLONE_NEWNS), 0);
      ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
      std::string name = "/tmp/gantry-mount-test-XXXXXX";
      ASSERT_NE(::mkdtemp(name.data()), nullptr);
      root_ = name;
      body();
      unmount_all(root_);
      remove_tree(root_);
    });
    thread.join();
  }
  Path make(const std::string& name) {
    make_directories(root_ / name);
    return root_ / name;
  }
  Path root_;
};

TEST_F(MountTest, ListsMountsOfTheCallingThreadWithOddNames) {
  in_private_namespace([&] {
    const Path place = make("with space\tand \\ tab");
    EXPECT_FALSE(is_mount_point(place));
    attach_mount(make_mount("tmpfs", {"size=1m", "mode=0711"}, MOUNT_ATTR_NOSUID).get(), place);
    EXPECT_TRUE(is_mount_point(place));
    EXPECT_FALSE(is_mount_point(place / "none"));
    const auto mounts = list_mounts(place);
    ASSERT_EQ(mounts.size(), 1u);
    EXPECT_EQ(mounts[0].mount_point, place);
    EXPECT_EQ(mounts[0].filesystem, "tmpfs");
    struct stat st{};
    ASSERT_EQ(::stat(place.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0711u);
    EXPECT_TRUE(unmount(place, Unmount::now));
    EXPECT_FALSE(unmount(place, Unmount::now));
    EXPECT_FALSE(unmount(place / "none", Unmount::lazy));
  });
}

TEST_F(MountTest, RefusesToUnmountWhatIsInUse) {
  in_private_namespace([&] {
    const Path place = make("busy");
    attach_mount(make_mount("tmpfs", {}).get(), place);
    {
      const Fd user = open_file(place, O_RDONLY | O_DIRECTORY);
      try {
        unmount(place, Unmount::now);
        ADD_FAILURE();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), Errc::conflict);
      }
    }
    EXPECT_TRUE(unmount(place, Unmount::lazy));
  });
}

TEST_F(MountTest, ClonesATreeReadOnlyWithoutTouchingTheOriginal) {
  in_private_namespace([&] {
    const Path from = make("from");
    const Path to = make("to");
    write_atomically(from / "f", "x", 0644, false);
    const Fd source = open_file(from, O_PATH | O_DIRECTORY);
    const Fd tree = clone_mount(source.get(), true);
    set_mount_attributes(tree.get(), MOUNT_ATTR_RDONLY, 0, MS_PRIVATE, true);
    attach_mount(tree.get(), to);
    EXPECT_EQ(read_file(to / "f"), "x");
    EXPECT_THROW(open_file(to / "f", O_WRONLY), Error);
    open_file(from / "f", O_WRONLY);
  });
}

TEST_F(MountTest, SaysWhatTheKernelHasAgainstAMount) {
  in_private_namespace([&] {
    try {
      make_mount("tmpfs", {"no-such-option=1"});
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_NE(e.message().find("Unknown parameter"), std::string::npos) << e.message();
    }
    EXPECT_THROW(make_mount("no-such-filesystem", {}), Error);
  });
}

TEST_F(MountTest, AnOverlayTakesManyDirectoriesEitherWay) {
  for (const bool classic : {false, true}) {
    in_private_namespace([&] {
      OverlaySpec spec;
      spec.classic = classic;
      for (int i = 0; i < 128; ++i) {
        spec.lower.push_back(make(fmt::format("a-long-enough-name-for-a-layer-directory-of-an-image/{}", i)));
        write_atomically(spec.lower.back() / fmt::format("f{}", i), "x", 0644, false);
      }
      spec.upper = make("upper");
      spec.work = make("work");
      const Path merged = make("merged");
      mount_overlay(spec, merged);
      EXPECT_EQ(list_directory(merged).size(), 128u);
      write_atomically(merged / "new", "x", 0644, false);
      EXPECT_EQ(list_directory(spec.upper), std::vector<std::string>{"new"});
      EXPECT_TRUE(unmount(merged, Unmount::lazy));

      spec.upper.clear();
      const Fd view = open_overlay(spec, merged);
      EXPECT_FALSE(is_mount_point(merged)) << "attached nowhere";
      const Fd file(::openat(view.get(), "f77", O_RDONLY | O_CLOEXEC));
      EXPECT_TRUE(file);
    });
  }
}

TEST(Mountinfo, KnowsTheRootAndIsBoundedToASubtree) {
  const auto all = list_mounts();
  ASSERT_FALSE(all.empty());
  EXPECT_TRUE(std::any_of(all.begin(), all.end(), [](const MountInfo& m) { return m.mount_point == "/"; }));
  for (const MountInfo& m : list_mounts(Path("/proc"))) EXPECT_TRUE(m.mount_point.string().starts_with("/proc"));
  EXPECT_TRUE(list_mounts(Path("/pro")).empty());
}

}  // namespace
}  // namespace gantry::sys
