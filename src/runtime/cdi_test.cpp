#include "runtime/cdi.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "runtime/yaml.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {
namespace {

constexpr const char* kYaml = R"(---
# as nvidia-ctk writes it
cdiVersion: 0.5.0
containerEdits:
  env:
  - VENDOR_VISIBLE=void
  hooks:
  - args:
    - tool
    - "--flag=a b"
    hookName: createContainer
    path: /usr/bin/tool
  mounts:
  - containerPath: /usr/lib/libx.so
    hostPath: /etc/hostname
    options: ["ro", "nosuid", "bind"]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/vendor0
      hostPath: /dev/null
      permissions: rw
      fileMode: 0660
  name: "0"
- name: all
  containerEdits:
    additionalGids: [44]
kind: vendor.example/gpu
)";

class Cdi : public testing::Test {
 protected:
  void SetUp() override { sys::make_directories(directory_ / "later"); }
  void TearDown() override { sys::remove_tree(directory_); }
  void put(const std::string& name, const std::string& text) {
    sys::write_atomically(directory_ / name, text, 0644, false);
  }
  std::vector<std::string> directories() const { return {directory_.string(), (directory_ / "later").string()}; }
  ContainerSpec inject(const std::vector<std::string>& devices) {
    ContainerSpec spec;
    inject_cdi_devices_blocking(spec, directories(), devices, HostFacts{});
    return spec;
  }
  const sys::Path directory_ = fmt::format("/tmp/cdi-{}", random_id().substr(0, 12));
};

TEST_F(Cdi, ADeviceBringsItsNodesAndWhatItsFileSaysOfAll) {
  put("vendor.yaml", kYaml);
  const ContainerSpec spec = inject({"vendor.example/gpu=0", "vendor.example/gpu=all"});
  ASSERT_EQ(spec.devices.size(), 1u);
  EXPECT_EQ(spec.devices[0].path, "/dev/vendor0");
  EXPECT_EQ(spec.devices[0].major, 1);
  EXPECT_EQ(spec.devices[0].minor, 3);
  EXPECT_EQ(spec.devices[0].file_mode, 0660u);
  ASSERT_EQ(spec.device_rules.size(), 1u);
  EXPECT_EQ(spec.device_rules[0].access, "rw");
  EXPECT_EQ(spec.env, std::vector<std::string>{"VENDOR_VISIBLE=void"});
  ASSERT_EQ(spec.hooks.size(), 1u);
  EXPECT_EQ(spec.hooks[0].args, (std::vector<std::string>{"tool", "--flag=a b"}));
  ASSERT_EQ(spec.mounts.size(), 1u);
  EXPECT_EQ(spec.mounts[0].options, (std::vector<std::string>{"ro", "nosuid", "bind"}));
  EXPECT_EQ(spec.user.additional_gids, std::vector<std::uint32_t>{44});
}

TEST_F(Cdi, ALaterDirectoryWinsAndTwoFilesOfOneConflict) {
  const auto file = [](const char* value) {
    return fmt::format(
        R"({{"cdiVersion":"0.6.0","kind":"a/b","devices":[{{"name":"x","containerEdits":{{"env":["{}"]}}}}]}})", value);
  };
  put("one.json", file("A=1"));
  EXPECT_EQ(inject({"a/b=x"}).env, std::vector<std::string>{"A=1"});
  put("later/two.json", file("A=2"));
  EXPECT_EQ(inject({"a/b=x"}).env, std::vector<std::string>{"A=2"});
  put("later/three.json", file("A=3"));
  EXPECT_THROW((void)inject({"a/b=x"}), Error);
}

TEST_F(Cdi, WhatIsNotThereIsNamedAndABrokenFileIsPassedOver) {
  put("broken.json", "{");
  put("vendor.yaml", kYaml);
  try {
    (void)inject({"vendor.example/gpu=0", "vendor.example/gpu=7"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "CDI device injection failed: unresolvable CDI devices vendor.example/gpu=7");
  }
  const CdiInventory inventory = list_cdi_devices_blocking(directories());
  EXPECT_EQ(inventory.devices, (std::vector<std::string>{"vendor.example/gpu=0", "vendor.example/gpu=all"}));
  ASSERT_EQ(inventory.warnings.size(), 1u);
  EXPECT_NE(inventory.warnings[0].find("broken.json"), std::string::npos);
}

TEST(Yaml, WhatIsNotUnderstoodIsRefusedWithItsLine) {
  for (const char* text :
       {"a: &x 1", "a: |\n  text", "\ta: 1", "a: 1\na: 2", "a: 1\n---\nb: 2", "a: [1", "a: 'x", "a\nb: 1"})
    EXPECT_THROW((void)parse_yaml(text), Error) << text;
  EXPECT_EQ(json::render(parse_yaml("a:\n  - b: 1\n    c: 'it''s'\n  -\n    - x # no\nd: {}\ne:\nf: \"#\"")),
            R"({"a":[{"b":1,"c":"it's"},["x"]],"d":{},"e":null,"f":"#"})");
}

}  // namespace
}  // namespace gantry::runtime
