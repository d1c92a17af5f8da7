#include "runtime/users.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gantry::runtime {
namespace {

const std::string kPasswd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "# a comment\n"
    "broken line\n"
    "web:x:1000:1000:Web,,,:/srv/web:/bin/sh\n"
    "big:x:99999999999:1:::\n"
    "0123:x:7:7::/odd:\n";
const std::string kGroup = "root:x:0:\nweb:x:1000:\naudio:x:29:web,root\nvideo:x:44:web\n";

ResolvedUser resolve(std::string_view user, const std::vector<std::string>& add = {}) {
  return resolve_user(kPasswd, kGroup, user, add);
}

std::string error_of(std::string_view user, const std::vector<std::string>& add = {}) {
  try {
    (void)resolve(user, add);
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

using Gids = std::vector<std::uint32_t>;

TEST(Users, EmptyIsRootWithItsGroups) {
  const auto found = resolve("");
  EXPECT_EQ(found.user.uid, 0u);
  EXPECT_EQ(found.home, "/root");
  EXPECT_EQ(found.user.additional_gids, (Gids{0, 29}));
}

TEST(Users, NameBringsItsGroupsAndHome) {
  const auto found = resolve("web");
  EXPECT_EQ(found.user.uid, 1000u);
  EXPECT_EQ(found.user.gid, 1000u);
  EXPECT_EQ(found.home, "/srv/web");
  EXPECT_EQ(found.user.additional_gids, (Gids{1000, 29, 44}));
}

TEST(Users, ExplicitGroupReplacesTheOthers) {
  const auto found = resolve("web:audio", {"44", "video", "1234"});
  EXPECT_EQ(found.user.gid, 29u);
  EXPECT_EQ(found.user.additional_gids, (Gids{29, 44, 1234}));
  EXPECT_EQ(resolve("1000:5").user.gid, 5u);
}

TEST(Users, UnknownNumberNeedsNoEntry) {
  const auto found = resolve("4242");
  EXPECT_EQ(found.user.uid, 4242u);
  EXPECT_EQ(found.user.gid, 0u);
  EXPECT_EQ(found.home, "/");
  EXPECT_TRUE(found.name.empty());
  EXPECT_EQ(resolve_user(std::nullopt, std::nullopt, "12:34", {}).user.gid, 34u);
}

TEST(Users, NumbersAreNeverNames) {
  EXPECT_EQ(resolve("0123").user.uid, 123u);
  EXPECT_EQ(error_of("4294967296"), "uids and gids must be in range 0-2147483647");
  EXPECT_EQ(error_of("-1"), "uids and gids must be in range 0-2147483647");
  EXPECT_EQ(error_of("0:2147483648"), "uids and gids must be in range 0-2147483647");
  EXPECT_EQ(error_of("99999999999999999999999"), "uids and gids must be in range 0-2147483647");
}

TEST(Users, MissingNamesAreDockersTexts) {
  EXPECT_EQ(error_of("foo"), "unable to find user foo: no matching entries in passwd file");
  EXPECT_EQ(error_of("big"), "unable to find user big: no matching entries in passwd file");
  EXPECT_EQ(error_of("web:bar"), "unable to find group bar: no matching entries in group file");
  EXPECT_EQ(error_of("web", {"nope"}), "Unable to find group nope");
}

TEST(Users, FilesAreReadInsideTheRoot) {
  const std::filesystem::path root = "/tmp/gantry-users-" + random_id().substr(0, 8);
  std::filesystem::create_directories(root / "etc");
  std::ofstream(root / "etc/real") << "inside:x:77:78::/in:\n";
  std::filesystem::create_symlink("/etc/real", root / "etc/passwd");  // absolute, but below the root
  const auto found = resolve_user_blocking(root, "inside", {});
  EXPECT_EQ(found.user.uid, 77u);
  EXPECT_EQ(found.home, "/in");

  std::filesystem::remove(root / "etc/passwd");
  ASSERT_EQ(::mkfifo((root / "etc/passwd").c_str(), 0644), 0);
  EXPECT_THROW((void)resolve_user_blocking(root, "inside", {}), Error);  // and does not wait for a writer
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace gantry::runtime
