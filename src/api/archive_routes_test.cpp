#include "api/archive_routes.hpp"

#include <sys/stat.h>

#include <gtest/gtest.h>

namespace gantry::api {
namespace {

TEST(ArchiveRoutes, ModesAreGosOwn) {
  EXPECT_EQ(to_go_mode(S_IFREG | 0644), 0644u);
  EXPECT_EQ(to_go_mode(S_IFDIR | 01777), (1u << 31 | 1u << 20 | 0777u));
  EXPECT_EQ(to_go_mode(S_IFLNK | 0777), 134218239u);  // as dockerd sends for a link
  EXPECT_EQ(to_go_mode(S_IFREG | 06755), (1u << 23 | 1u << 22 | 0755u));
  EXPECT_EQ(to_go_mode(S_IFCHR | 0666), (1u << 26 | 1u << 21 | 0666u));
  EXPECT_EQ(to_go_mode(S_IFBLK | 0660), (1u << 26 | 0660u));
  EXPECT_EQ(to_go_mode(S_IFIFO | 0600), (1u << 25 | 0600u));
  EXPECT_EQ(to_go_mode(S_IFSOCK | 0755), (1u << 24 | 0755u));
}

TEST(ArchiveRoutes, APathsLooksAreOneJsonObject) {
  storage::PathStat stat;
  stat.name = "sh";
  stat.size = 7;
  stat.mode = S_IFLNK | 0777;
  stat.mtime = Timestamp(std::chrono::seconds(1792675090));
  stat.link_target = "/bin/busybox";
  EXPECT_EQ(render_path_stat(stat),
            R"({"name":"sh","size":7,"mode":134218239,"mtime":"2026-10-22T13:18:10Z","linkTarget":"/bin/busybox"})");
}

}  // namespace
}  // namespace gantry::api
