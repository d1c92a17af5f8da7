#include "runtime/seccomp.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include <boost/json.hpp>

#include "base/error.hpp"
#include "json/json.hpp"
#include "runtime/capabilities.hpp"

namespace gantry::runtime {
namespace {

HostFacts host() {
  HostFacts facts;
  facts.goarch = "amd64";
  facts.kernel_major = 6;
  facts.kernel_minor = 18;
  return facts;
}

/// Whether some ALLOW group names the call (arguments aside).
bool allows(const std::string& rendered, std::string_view name) {
  const json::Value document = json::parse(rendered);
  for (const json::Value& group : document.at("syscalls").as_array()) {
    if (group.at("action").as_string() != "SCMP_ACT_ALLOW") continue;
    for (const json::Value& known : group.at("names").as_array())
      if (known.as_string() == name) return true;
  }
  return false;
}

std::string error_of(std::string_view profile) {
  try {
    validate_seccomp_profile(profile, host());
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
  return "";
}

TEST(Seccomp, ProfileHasDockersGroups) {
  const json::Value document = json::parse(default_seccomp_profile());
  const auto& groups = document.at("syscalls").as_array();
  EXPECT_EQ(groups.size(), 33u);
  EXPECT_EQ(groups[0].at("names").as_array().size(), 361u);
}

TEST(Seccomp, DefaultDeniesWhatDockerDenies) {
  const std::string rendered = render_seccomp(default_seccomp_profile(), default_capabilities(), host());
  for (const char* name : {"read", "openat2", "execve", "clone", "ptrace", "socket", "chroot", "personality", "seccomp",
                           "landlock_restrict_self", "memfd_create", "rseq", "arch_prctl"})
    EXPECT_TRUE(allows(rendered, name)) << name;
  for (const char* name : {"unshare", "setns", "mount", "umount2", "keyctl", "add_key", "bpf", "perf_event_open",
                           "io_uring_setup", "userfaultfd", "kexec_load", "pivot_root", "reboot", "init_module",
                           "open_by_handle_at", "clone3", "syslog", "settimeofday", "move_pages"})
    EXPECT_FALSE(allows(rendered, name)) << name;
  EXPECT_NE(rendered.find(R"({"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38})"), std::string::npos);
  EXPECT_NE(rendered.find(R"("architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"])"),
            std::string::npos);
}

TEST(Seccomp, CapabilitiesOpenTheirGroups) {
  const std::string rendered = render_seccomp(default_seccomp_profile(), {"CAP_SYS_ADMIN", "CAP_SYS_BOOT"}, host());
  for (const char* name : {"unshare", "mount", "clone3", "reboot", "bpf"}) EXPECT_TRUE(allows(rendered, name)) << name;
  EXPECT_EQ(rendered.find("SCMP_ACT_ERRNO\",\"errnoRet\":38"), std::string::npos);
  EXPECT_FALSE(allows(rendered, "chroot"));
}

TEST(Seccomp, OldKernelsLosePtrace) {
  HostFacts old = host();
  old.kernel_major = 4;
  old.kernel_minor = 7;
  EXPECT_FALSE(allows(render_seccomp(default_seccomp_profile(), {}, old), "ptrace"));
}

TEST(Seccomp, NamesThatLibseccompLacksAreLeftOut) {
  const auto rendered = render_seccomp(
      R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["nonesuch","chmod"],"action":"SCMP_ACT_ERRNO"},
          {"name":"othernone","action":"SCMP_ACT_KILL"}]})",
      {}, host());
  EXPECT_EQ(rendered,
            R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]})");
}

TEST(Seccomp, BadProfilesAreFoundBeforeTheStart) {
  EXPECT_TRUE(error_of("{").starts_with("Decoding seccomp profile failed: "));
  EXPECT_NE(error_of("[]"), "");
  EXPECT_NE(error_of(R"({"defaultAction":"ALLOW"})"), "");
  EXPECT_NE(error_of(R"({"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                         "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]})")
                .find("use either 'architectures' or 'archMap'"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],
                         "action":"SCMP_ACT_ALLOW"}]})")
                .find("use either 'name' or 'names'"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                         "args":[{"index":9,"op":"SCMP_CMP_EQ"}]}]})"),
            "");
  EXPECT_NE(error_of(R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                         "includes":{"minKernel":"abc"}}]})"),
            "");
  EXPECT_EQ(error_of(R"({"defaultAction":"SCMP_ACT_ALLOW"})"), "");
}

TEST(Seccomp, CacheGivesTheSameTextAgain) {
  const HostFacts facts = host();
  SeccompCache cache(facts);
  const auto first = cache.get_default(default_capabilities());
  EXPECT_EQ(first, cache.get_default(default_capabilities()));
  EXPECT_NE(first, cache.get_default({}));
  for (int i = 0; i < 40; ++i) (void)cache.get_default({"CAP_" + std::to_string(i)});
  EXPECT_NE(first, cache.get_default(default_capabilities()));
}

}  // namespace
}  // namespace gantry::runtime
