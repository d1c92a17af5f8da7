#include "runtime/capabilities.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.hpp"

namespace gantry::runtime {
namespace {

std::set<std::string> all() { return {known_capabilities().begin(), known_capabilities().end()}; }

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

std::string error_of(const CapabilityRequest& request, const std::set<std::string>& own) {
  try {
    (void)resolve_capabilities(request, own);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
  return "";
}

TEST(Capabilities, DefaultIsDockersFourteen) {
  const auto names = resolve_capabilities({}, all());
  EXPECT_EQ(names.size(), 14u);
  EXPECT_TRUE(has(names, "CAP_CHOWN"));
  EXPECT_TRUE(has(names, "CAP_NET_RAW"));
  EXPECT_FALSE(has(names, "CAP_SYS_ADMIN"));
}

TEST(Capabilities, AddAndDropTakeAnyCaseAndNoPrefix) {
  const auto names = resolve_capabilities({{"sys_admin"}, {"CAP_chown", "net_raw"}}, all());
  EXPECT_EQ(names.size(), 13u);
  EXPECT_TRUE(has(names, "CAP_SYS_ADMIN"));
  EXPECT_FALSE(has(names, "CAP_CHOWN"));
  EXPECT_FALSE(has(names, "CAP_NET_RAW"));
}

TEST(Capabilities, AddAllIsAllButTheDropped) {
  const auto names = resolve_capabilities({{"ALL"}, {"SYS_ADMIN"}}, all());
  EXPECT_EQ(names.size(), known_capabilities().size() - 1);
}

TEST(Capabilities, DropAllLeavesTheAdded) {
  EXPECT_EQ(resolve_capabilities({{"CHOWN"}, {"all"}}, all()), std::vector<std::string>{"CAP_CHOWN"});
  EXPECT_TRUE(resolve_capabilities({{}, {"ALL"}}, all()).empty());
}

TEST(Capabilities, NobodyGetsMoreThanTheDaemonHas) {
  auto own = all();
  own.erase("CAP_SYS_RESOURCE");
  EXPECT_FALSE(has(resolve_capabilities({{"ALL"}, {}}, own), "CAP_SYS_RESOURCE"));
  CapabilityRequest privileged;
  privileged.privileged = true;
  EXPECT_EQ(resolve_capabilities(privileged, own).size(), own.size());
  EXPECT_NE(error_of({{"SYS_RESOURCE"}, {}}, own).find("not available in the current environment"), std::string::npos);
  own.erase("CAP_MKNOD");
  EXPECT_EQ(resolve_capabilities({}, own).size(), 13u);
}

TEST(Capabilities, UnknownNameIsDockersText) {
  EXPECT_EQ(error_of({{"FOO"}, {}}, all()), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
  EXPECT_EQ(error_of({{}, {"cap_bar"}}, all()), "invalid CapDrop: unknown capability: \"CAP_BAR\"");
}

TEST(Capabilities, OwnSetComesFromTheKernel) {
  const auto own = own_capabilities();
  EXPECT_TRUE(own.contains("CAP_CHOWN"));  // the tests run as root
}

}  // namespace
}  // namespace gantry::runtime
