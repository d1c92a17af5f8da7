#include "sys/id_mapping.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "sys/mount.hpp"

namespace gantry::sys {
namespace {

const IdMapping kShifted{{{0, 100000, 1000}, {1000, 1000, 1}}, {{0, 200000, 1000}}};

TEST(IdMapping, TranslatesInBothDirections) {
  EXPECT_EQ(kShifted.host_uid(0), 100000u);
  EXPECT_EQ(kShifted.host_uid(999), 100999u);
  EXPECT_EQ(kShifted.host_uid(1000), 1000u);
  EXPECT_EQ(kShifted.host_gid(7), 200007u);
  EXPECT_EQ(kShifted.container_uid(100001), 1u);
  EXPECT_EQ(kShifted.container_uid(0), 65534u);
  EXPECT_THROW((void)kShifted.host_uid(1001), Error);
  EXPECT_EQ(IdMapping{}.host_uid(42), 42u);
  EXPECT_EQ(IdMapping{}.container_gid(42), 42u);
}

TEST(IdMapping, ANamespaceShowsFilesAsTheContainersOwnThroughAMount) {
  const Path directory = fmt::format("/tmp/id-mapping-{}", random_id().substr(0, 12));
  make_directories(directory, 0755);
  const Fd userns = make_user_namespace(kShifted);
  const Fd place = open_file(directory, O_PATH | O_DIRECTORY);
  const Fd mount = clone_mapped_mount(place.get(), userns.get());
  struct stat st{};
  ASSERT_EQ(::fstat(mount.get(), &st), 0);
  EXPECT_EQ(st.st_uid, 100000u);
  EXPECT_EQ(st.st_gid, 200000u);
  remove_tree(directory);
}

TEST(IdMapping, ANamespaceOnAPathIsReplacedAndRemoved) {
  const Path path = fmt::format("/tmp/id-mapping-{}", random_id().substr(0, 12));
  create_user_namespace(path, kShifted);
  create_user_namespace(path, kShifted);
  EXPECT_TRUE(is_mount_point(path));
  remove_user_namespace(path);
  remove_user_namespace(path);
  struct stat st{};
  EXPECT_NE(::lstat(path.c_str(), &st), 0);
}

}  // namespace
}  // namespace gantry::sys
