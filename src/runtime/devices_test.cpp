#include "runtime/devices.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "runtime/propagation.hpp"
#include "runtime/security_opts.hpp"

namespace gantry::runtime {
namespace {

template <class F>
std::string error_of(F call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
  return "";
}

TEST(Devices, NodeKeepsItsNumbersAndTakesTheNewPath) {
  const auto found = resolve_device_blocking({"/dev/null", "/dev/other", "r"});
  ASSERT_EQ(found.devices.size(), 1u);
  EXPECT_EQ(found.devices[0].path, "/dev/other");
  EXPECT_EQ(found.devices[0].type, 'c');
  EXPECT_EQ(found.devices[0].major, 1);
  EXPECT_EQ(found.devices[0].minor, 3);
  EXPECT_EQ(found.rules[0].access, "r");
}

TEST(Devices, LinksAreFollowedAndDirectoriesWalked) {
  const std::filesystem::path dir = "/tmp/gantry-devices-" + random_id().substr(0, 8);
  std::filesystem::create_directories(dir);
  std::filesystem::create_symlink("/dev/zero", dir / "link");
  EXPECT_EQ(resolve_device_blocking({(dir / "link").string(), "/dev/z", ""}).devices[0].minor, 5);
  std::filesystem::remove_all(dir);
  EXPECT_GE(resolve_device_blocking({"/dev/net", "", ""}).devices.size(), 1u);
}

TEST(Devices, TextsAreDockers) {
  EXPECT_EQ(error_of([] { (void)resolve_device_blocking({"/dev/nonesuch", "", ""}); }),
            "error gathering device information while adding custom device \"/dev/nonesuch\": no such file or "
            "directory");
  EXPECT_EQ(error_of([] { (void)resolve_device_blocking({"/etc/passwd", "", ""}); }),
            "error gathering device information while adding custom device \"/etc/passwd\": not a device node");
  EXPECT_NE(error_of([] { validate_device_request({"/dev/null", "/dev/../../x", ""}); }), "");
  EXPECT_NE(error_of([] { validate_device_request({"/dev/null", "x", ""}); }), "");
  EXPECT_NE(error_of([] { validate_device_request({"/dev/null", "", "zzz"}); }), "");
}

TEST(Devices, PrivilegedContainersSeeTheHostsNodes) {
  const auto devices = list_host_devices_blocking();
  const auto at = [&](const char* path) { return std::ranges::find(devices, path, &Device::path) != devices.end(); };
  EXPECT_TRUE(at("/dev/null"));
  EXPECT_FALSE(at("/dev/ptmx"));
  EXPECT_FALSE(at("/dev/console"));
  for (const Device& device : devices) EXPECT_FALSE(device.path.starts_with("/dev/pts/")) << device.path;
}

TEST(Devices, CgroupRulesAreParsedStrictly) {
  const auto rule = parse_device_rule("c 10:* rw");
  EXPECT_EQ(rule.type, 'c');
  EXPECT_EQ(rule.major, 10);
  EXPECT_FALSE(rule.minor.has_value());
  EXPECT_EQ(rule.access, "rw");
  EXPECT_NO_THROW((void)parse_device_rule("a *:* rwm"));
  EXPECT_EQ(error_of([] { (void)parse_device_rule("x"); }), "invalid device cgroup rule format: 'x'");
  EXPECT_NE(error_of([] { (void)parse_device_rule("c 99999999999:1 rwm"); }), "");
}

TEST(SecurityOptions, AreTakenApart) {
  const HostFacts facts;
  const auto options = parse_security_opts(
      {"no-new-privileges:true", "seccomp=unconfined", "label=disable", "apparmor=unconfined"}, facts);
  EXPECT_EQ(options.no_new_privileges, true);
  EXPECT_EQ(options.seccomp, SecurityOptions::Seccomp::unconfined);
  EXPECT_TRUE(options.label_disabled);
  EXPECT_EQ(parse_security_opts({"seccomp={\"a\":1}"}, facts).seccomp_profile, "{\"a\":1}");
  EXPECT_EQ(error_of([&] { (void)parse_security_opts({"bogus"}, facts); }), "invalid --security-opt 1: \"bogus\"");
  EXPECT_EQ(error_of([&] { (void)parse_security_opts({"bogus=1"}, facts); }), "invalid --security-opt 2: \"bogus=1\"");
  EXPECT_NE(error_of([&] { (void)parse_security_opts({"apparmor=nope"}, facts); }), "");
}

TEST(Propagation, SharedNeedsASharedSource) {
  EXPECT_EQ(required_root_propagation_blocking("/proc", "rprivate"), "");
  const auto answer = error_of([] { EXPECT_EQ(required_root_propagation_blocking("/proc", "rshared"), "shared"); });
  if (!answer.empty()) EXPECT_EQ(answer, "path /proc is mounted on /proc but it is not a shared mount");
  EXPECT_EQ(merge_root_propagation("rslave", "shared"), "shared");
  EXPECT_EQ(merge_root_propagation("", "rslave"), "rslave");
}

}  // namespace
}  // namespace gantry::runtime
