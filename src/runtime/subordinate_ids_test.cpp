#include "runtime/subordinate_ids.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gantry::runtime {
namespace {

class SubordinateIds : public testing::Test {
 protected:
  void SetUp() override { sys::make_directories(directory_); }
  void TearDown() override { sys::remove_tree(directory_); }
  sys::IdMapping read(const std::string& setting, const std::string& subuid, const std::string& subgid) {
    sys::write_atomically(files_.subuid, subuid, 0644, false);
    sys::write_atomically(files_.subgid, subgid, 0644, false);
    return read_id_mapping_blocking(setting, files_);
  }
  std::string failure(const std::string& setting, const std::string& subuid, const std::string& subgid) {
    try {
      (void)read(setting, subuid, subgid);
    } catch (const Error& e) {
      return e.message();
    }
    return "";
  }
  const sys::Path directory_ = fmt::format("/tmp/subordinate-ids-{}", random_id().substr(0, 12));
  const RemapFiles files_{directory_ / "subuid", directory_ / "subgid"};
};

TEST_F(SubordinateIds, RangesOfOneUserFollowEachOther) {
  const auto mapping = read("daemon", "# comment\nother:5:5\ndaemon:100000:10\n1:200000:5\n", "daemon:300000:65536\n");
  EXPECT_EQ(mapping.uids, (std::vector<sys::IdRange>{{0, 100000, 10}, {10, 200000, 5}}));
  EXPECT_EQ(mapping.gids, (std::vector<sys::IdRange>{{0, 300000, 65536}}));
}

TEST_F(SubordinateIds, UserAndGroupAreNamesOrNumbers) {
  for (const char* setting : {"daemon:bin", "1:2", "daemon:2", "1:bin"})
    EXPECT_EQ(read(setting, "daemon:100000:10\n", "bin:200000:10\n").gids.front().outside, 200000u) << setting;
}

TEST_F(SubordinateIds, RootIsNotMapped) { EXPECT_TRUE(read("root", "", "").empty()); }

TEST_F(SubordinateIds, WhatCannotBeIsNamed) {
  const std::string good = "daemon:100000:10\n";
  EXPECT_NE(failure("daemon", "", good).find("no subuid ranges found for user \"daemon\""), std::string::npos);
  EXPECT_NE(failure("daemon", good, "").find("no subgid ranges found for group \"daemon\""), std::string::npos);
  EXPECT_NE(failure("daemon", "daemon:4294967000:1000\n", good).find("invalid range"), std::string::npos);
  EXPECT_NE(failure("daemon", "daemon:-1:1000\n", good).find("invalid range"), std::string::npos);
  EXPECT_NE(failure("nobody-here", good, good).find("unknown user nobody-here"), std::string::npos);
  EXPECT_NE(failure("54321", good, good).find("Uid 54321 has no entry in /etc/passwd"), std::string::npos);
  for (const char* setting : {"", ":", "a:b:c", "daemon:", ":daemon", "default:default"})
    EXPECT_NE(failure(setting, good, good).find("invalid user/group specification"), std::string::npos) << setting;
}

}  // namespace
}  // namespace gantry::runtime
