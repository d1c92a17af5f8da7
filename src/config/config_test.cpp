#include "config/load.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "config/json_lines.hpp"
#include "config/options.hpp"
#include "sys/file.hpp"

namespace gantry::config {
namespace {

namespace fs = std::filesystem;

/// A daemon.json in a directory of its own.
class Configuration : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gantry-config-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  void TearDown() override { fs::remove_all(directory_); }

  ParsedCommandLine command(std::string_view file, std::vector<std::string> flags = {}) {
    std::ofstream(directory_ / "daemon.json") << file;
    flags.insert(flags.begin(), {"gantryd", "--config-file", (directory_ / "daemon.json").string()});
    std::vector<const char*> argv;
    for (const std::string& flag : flags) argv.push_back(flag.c_str());
    return parse_command_line(static_cast<int>(argv.size()), argv.data());
  }
  LoadResult load_text(std::string_view file, std::vector<std::string> flags = {}) {
    return load(command(file, std::move(flags)), host_);
  }
  /// The problems of a file without the file's name.
  std::vector<std::string> problems_of(std::string_view file, std::vector<std::string> flags = {}) {
    std::vector<std::string> lines;
    for (Problem& problem : load_text(file, std::move(flags)).problems) {
      if (!problem.file.empty()) problem.file = "f";
      lines.push_back(render_problem(problem));
    }
    return lines;
  }

  fs::path directory_;
  HostFacts host_;
};

using Lines = std::vector<std::string>;

ParsedCommandLine parse(std::vector<const char*> argv) {
  argv.insert(argv.begin(), "gantryd");
  return parse_command_line(static_cast<int>(argv.size()), argv.data());
}

TEST(Options, EveryKeyAndFlagIsThereOnce) {
  std::set<std::string_view> keys;
  std::set<std::string_view> flags;
  for (const Option& option : options()) {
    EXPECT_TRUE(keys.insert(option.key).second) << option.key;
    if (!option.flag.empty()) EXPECT_TRUE(flags.insert(option.flag).second) << option.flag;
    EXPECT_FALSE(option.help.empty()) << option.key;
  }
  EXPECT_GE(keys.size(), 90u);
}

TEST(Options, StandardValuesPassTheirOwnChecks) {
  const Config standard;
  for (const Option& option : options()) {
    if (option.check != nullptr) EXPECT_FALSE(option.check(standard).has_value()) << option.key;
  }
}

TEST(Options, ThePageInDocsIsTheTable) {
  fs::path page = fs::path(__FILE__).parent_path() / "../../docs/options.md";
  if (std::getenv("ACCEPT") != nullptr) std::ofstream(page) << render_options_page();
  EXPECT_EQ(sys::find_file(page).value_or(""), render_options_page()) << "run this test with ACCEPT=1 and commit";
}

TEST(CommandLine, TakesRepeatedAndShortFlags) {
  auto parsed =
      parse({"-H", "unix:///a", "-H", "tcp://b:1", "-D", "--icc=false", "-G", "ops", "-l", "warn", "--label=a=b"});
  ASSERT_EQ(parsed.action, Action::run) << parsed.text;
  std::map<std::string, std::vector<std::string>> flags(parsed.flags.begin(), parsed.flags.end());
  EXPECT_EQ(flags["hosts"], (Lines{"unix:///a", "tcp://b:1"}));
  EXPECT_EQ(flags["debug"], Lines{"true"});
  EXPECT_EQ(flags["icc"], Lines{"false"});
  EXPECT_EQ(flags["group"], Lines{"ops"});
  EXPECT_EQ(flags["labels"], Lines{"a=b"});
}

TEST(CommandLine, HelpAndVersionArePrintedOnStandardOutput) {
  EXPECT_EQ(parse({"--version"}).action, Action::print);
  EXPECT_EQ(parse({"-v"}).exit_code, 0);
  auto help = parse({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_NE(help.text.find("--insecure-registry"), std::string::npos);
}

TEST(CommandLine, UnknownFlagIsAUsageError) {
  auto parsed = parse({"--no-such-flag"});
  EXPECT_EQ(parsed.action, Action::print);
  EXPECT_EQ(parsed.exit_code, 125);
}

TEST(CommandLine, SubcommandsAreRecognised) {
  EXPECT_EQ(parse({"doctor"}).action, Action::doctor);
  EXPECT_EQ(parse({"doctor", "--repair"}).arguments, Lines{"--repair"});
  auto show = parse({"--data-root", "/x", "config", "show"});
  EXPECT_EQ(show.action, Action::show_config);
  EXPECT_EQ(show.flags.size(), 1u);
}

TEST_F(Configuration, StandsAloneWithoutAFile) {
  auto parsed = parse({"--config-file", "/tmp/gantry-no-such-file.json"});
  EXPECT_FALSE(load(parsed, host_).usable()) << "a file that was asked for must exist";
  parsed.config_file_given = false;
  auto loaded = load(parsed, host_);
  EXPECT_TRUE(loaded.problems.empty());
  EXPECT_EQ(loaded.config.hosts, Lines{"unix:///run/gantry.sock"});
}

TEST_F(Configuration, AnEmptyFileIsFine) {
  EXPECT_TRUE(problems_of("").empty());
  EXPECT_TRUE(problems_of(" \n").empty());
  EXPECT_TRUE(problems_of("\xef\xbb\xbf{}").empty());
}

TEST_F(Configuration, ReadsEveryKindOfValue) {
  auto loaded = load_text(R"({
    "debug": true, "mtu": 1400, "default-shm-size": "128M", "labels": ["a=b"],
    "log-opts": {"max-size": "1m"}, "features": {"buildkit": true},
    "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}},
    "default-address-pools": [{"base": "10.200.0.0/16", "size": 24}],
    "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}},
    "runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["-x"]}},
    "builder": {"gc": {"enabled": false, "defaultKeepStorage": "1GB"}},
    "proxies": {"http-proxy": "http://p:3128", "no-proxy": "localhost"},
    "host-gateway-ip": "10.0.0.1"})");
  ASSERT_TRUE(loaded.problems.empty()) << render_problem(loaded.problems.front());
  const Config& c = loaded.config;
  EXPECT_TRUE(c.debug);
  EXPECT_EQ(c.mtu, 1400);
  EXPECT_EQ(c.default_shm_size, 128 << 20);
  EXPECT_EQ(c.default_address_pools, (std::vector<AddressPool>{{"10.200.0.0/16", 24}}));
  EXPECT_EQ(c.default_ulimits.at("nofile"), (Ulimit{"nofile", 10, 20}));
  EXPECT_EQ(c.runtimes.at("crun"), (Runtime{"/usr/bin/crun", {"-x"}, ""}));
  EXPECT_EQ(c.default_network_opts.at("bridge").at("com.docker.network.driver.mtu"), "1300");
  EXPECT_FALSE(c.builder.gc_enabled);
  EXPECT_EQ(c.builder.gc_reserved_bytes, 1 << 30);
  EXPECT_EQ(c.http_proxy, "http://p:3128");
  EXPECT_EQ(c.host_gateway_ips, Lines{"10.0.0.1"});
}

TEST_F(Configuration, ReadsTheSameFromFlags) {
  auto loaded = load_text(
      "{}", {"--default-ulimit", "nofile=10:20", "--default-address-pool", "base=10.200.0.0/16,size=24",
             "--add-runtime", "crun=/usr/bin/crun", "--log-opt", "max-size=1m", "--feature", "buildkit=false",
             "--default-shm-size", "128M", "--default-network-opt", "bridge=a=b", "--http-proxy", "http://p:1"});
  ASSERT_TRUE(loaded.problems.empty()) << render_problem(loaded.problems.front());
  EXPECT_EQ(loaded.config.default_ulimits.at("nofile"), (Ulimit{"nofile", 10, 20}));
  EXPECT_EQ(loaded.config.default_address_pools, (std::vector<AddressPool>{{"10.200.0.0/16", 24}}));
  EXPECT_EQ(loaded.config.runtimes.at("crun").path, "/usr/bin/crun");
  EXPECT_EQ(loaded.config.default_shm_size, 128 << 20);
  EXPECT_EQ(loaded.config.default_network_opts.at("bridge").at("a"), "b");
}

TEST_F(Configuration, ReportsAllProblemsAtOnceWithTheirLines) {
  Lines lines = problems_of(R"({
  "live-restor": true,
  "debug": "yes",
  "log-level": "inof",
  "dns": ["8.8.8.8", "nope"],
  "default-address-pools": [
    {"base": "10.0.0.0/8", "siez": 24}
  ],
  "mtu": 1.5
})");
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(
      lines[0],
      "f:2: live-restor: the following directives don't match any configuration option: live-restor; did you mean "
      "\"live-restore\"?");
  EXPECT_EQ(lines[1], "f:3: debug: must be true or false, not the string \"yes\"; allowed: true or false");
  EXPECT_EQ(lines[2],
            "f:4: log-level: invalid logging level: inof; allowed: debug, info, warn, error, fatal; did you mean "
            "\"info\"?");
  EXPECT_EQ(lines[3], "f:5: dns: nope is not an ip address; allowed: IPv4 or IPv6 addresses");
  EXPECT_EQ(lines[4], "f:7: default-address-pools[0].siez: unknown key; allowed: base, size; did you mean \"size\"?");
  EXPECT_EQ(lines[5], "f:9: mtu: must be a whole number, not the number 1.5E0; allowed: a whole number");
}

TEST_F(Configuration, ABadOptionalKeyLeavesTheDefault) {
  auto loaded = load_text(R"({"log-level": "loud", "mtu": 1400, "unknown": 1, "icc": "no"})");
  EXPECT_TRUE(loaded.usable());
  EXPECT_EQ(loaded.problems.size(), 3u);
  EXPECT_EQ(loaded.config.log_level, "info");
  EXPECT_EQ(loaded.config.mtu, 1400);
  EXPECT_TRUE(loaded.config.icc);
}

TEST_F(Configuration, ABadFlagIsFatal) {
  EXPECT_FALSE(load_text("{}", {"--mtu", "abc"}).usable());
  EXPECT_FALSE(load_text("{}", {"--log-level", "loud"}).usable());
}

TEST_F(Configuration, WhatHasNoSensibleDefaultIsFatal) {
  EXPECT_FALSE(load_text(R"({"hosts": ["http://x"]})").usable());
  EXPECT_FALSE(load_text(R"({"hosts": "unix:///x"})").usable());
  EXPECT_FALSE(load_text(R"({"data-root": "relative"})").usable());
  EXPECT_FALSE(load_text(R"({"tls": true, "tlscert": "/nonexistent", "tlskey": "/nonexistent"})").usable());
}

TEST_F(Configuration, NamesTheLineOfASyntaxError) {
  EXPECT_EQ(problems_of("{\n\"a\": 1,\n}"),
            Lines{"f:3: invalid JSON at column 1: there must be no comma before the closing bracket"});
  EXPECT_EQ(problems_of("{\n\"debug\": true\n\"icc\": false}"),
            Lines{"f:3: invalid JSON at column 1: a comma is missing before this"});
  EXPECT_EQ(problems_of("{\"log-level\": \"debug\""),
            Lines{"f:1: invalid JSON at column 22: the text ends before everything that was opened is closed"});
  EXPECT_EQ(problems_of("// hello\n{}"), Lines{"f:1: invalid JSON at column 1: comments are not allowed"});
  EXPECT_FALSE(load_text("{").usable());
  EXPECT_FALSE(load_text("[]").usable());
  EXPECT_FALSE(load_text("{} {}").usable());
}

TEST_F(Configuration, AKeyThatIsGivenTwiceIsReported) {
  EXPECT_EQ(problems_of("{\"debug\": true,\n\"debug\": false}"),
            Lines{"f:2: debug: given twice, first in line 1; the last one counts"});
}

TEST_F(Configuration, FlagAndFileMustNotDisagree) {
  EXPECT_EQ(problems_of(R"({"labels": ["c=d"], "hosts": ["unix:///x"]})", {"--label", "a=b", "-H", "fd://"}),
            Lines{"f:1: the following directives are specified both as a flag and in the configuration file: hosts: "
                  "(from flag: [fd://], from file: [unix:///x]), labels: (from flag: [a=b], from file: [c=d])"});
  EXPECT_TRUE(problems_of(R"({"debug": true})", {"--debug"}).empty());
  EXPECT_TRUE(problems_of(R"({"runtimes": {"a": {"path": "/a"}}})", {"--add-runtime", "b=/b"}).empty());
  auto merged = load_text(R"({"runtimes": {"a": {"path": "/a"}}})", {"--add-runtime", "b=/b"});
  EXPECT_EQ(merged.config.runtimes.size(), 2u);
}

TEST_F(Configuration, ASettingThatTheHostCannotHonourIsRefused) {
  auto loaded = load_text(R"({"exec-opts": ["native.cgroupdriver=systemd"]})");
  EXPECT_FALSE(loaded.usable());
  EXPECT_NE(loaded.fatal_text().find("systemd is not the init system"), std::string::npos);
  host_.systemd_running = true;
  EXPECT_TRUE(load_text(R"({"exec-opts": ["native.cgroupdriver=systemd"]})").usable());
}

TEST_F(Configuration, SystemdMakesTheCgroupsWhereItManagesAllOfThem) {
  EXPECT_FALSE(load_text("{}").config.systemd_cgroups());
  host_.systemd_running = true;
  EXPECT_FALSE(load_text("{}").config.systemd_cgroups());
  host_.cgroup_v2_only = true;
  EXPECT_TRUE(load_text("{}").config.systemd_cgroups());
  EXPECT_FALSE(load_text(R"({"exec-opts": ["native.cgroupdriver=cgroupfs"]})").config.systemd_cgroups());
  EXPECT_FALSE(load_text("{}", {"--exec-opt", "native.cgroupdriver=cgroupfs"}).config.systemd_cgroups());
  EXPECT_FALSE(load_text(R"({"cgroup-parent": "/mine"})").usable());
  EXPECT_TRUE(load_text(R"({"cgroup-parent": "mine.slice"})").usable());
  host_.systemd_running = false;
  EXPECT_FALSE(load_text("{}").config.systemd_cgroups());
}

TEST_F(Configuration, OptionsOfTheStorageDriver) {
  EXPECT_TRUE(problems_of(R"({"storage-opts": ["overlay2.override_kernel_check=true"]})").empty());
  for (const char* bad : {"overlay2.size=1G", "overlay2.override_kernel_check", "dm.fs=xfs"})
    EXPECT_EQ(problems_of(fmt::format(R"({{"storage-opts": ["{}"]}})", bad)).size(), 1u) << bad;
}

TEST_F(Configuration, KeysWithoutEffectAreAcceptedAndSaid) {
  auto loaded = load_text(R"({"selinux-enabled": true, "containerd": "/run/c.sock", "raw-logs": false})");
  EXPECT_TRUE(loaded.problems.empty());
  ASSERT_EQ(loaded.notes.size(), 2u);
  EXPECT_EQ(loaded.notes[0], "containerd is accepted and has no effect: this engine does not use containerd");
}

TEST_F(Configuration, ValidateGivesTheReportAndTheExitCode) {
  auto good = validate(command("{}"), host_);
  EXPECT_EQ(good.exit_code, 0);
  EXPECT_EQ(good.text, "configuration OK\n");
  auto bad = validate(command(R"({"debug": 1, "icc": 2})"), host_);
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_NE(bad.text.find("2 problems\n"), std::string::npos);
}

TEST_F(Configuration, ReloadTakesLiveKeysAndNamesTheOthers) {
  Config running = load_text(R"({"mtu": 1500})").config;
  auto result = reload(command(R"({"mtu": 1400, "debug": true, "labels": ["a=b"]})"), host_, running);
  EXPECT_EQ(result.changed, (Lines{"labels", "debug"}));
  EXPECT_EQ(result.needs_restart, Lines{"mtu"});
  EXPECT_TRUE(result.config.debug);
  EXPECT_EQ(result.config.mtu, 1500);
}

TEST_F(Configuration, ReloadOfABadFileChangesNothing) {
  Config running = load_text("{}").config;
  try {
    reload(command(R"({"debug": true, "max-concurrent-downloads": -1})"), host_, running);
    FAIL() << "must throw";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    EXPECT_NE(e.message().find("invalid max concurrent downloads: -1"), std::string::npos);
  }
}

TEST(Hosts, AreCompletedAsDockerdDoes) {
  EXPECT_EQ(normalise_host("", false), "unix:///run/gantry.sock");
  EXPECT_EQ(normalise_host("unix://", false), "unix:///run/gantry.sock");
  EXPECT_EQ(normalise_host("unix:///a b", false), "unix:///a b");
  EXPECT_EQ(normalise_host("tcp://", false), "tcp://localhost:2375");
  EXPECT_EQ(normalise_host("tcp://0.0.0.0", true), "tcp://0.0.0.0:2376");
  EXPECT_EQ(normalise_host("tcp://[::1]:99", false), "tcp://[::1]:99");
  EXPECT_EQ(normalise_host("10.0.0.1:2375", false), "tcp://10.0.0.1:2375");
  EXPECT_EQ(normalise_host("fd://", false), "fd://");
  for (const char* bad : {"http://x", "tcp://a:b", "tcp://a:99999", "unix://relative", "/run/x.sock", "tcp://[::1"})
    EXPECT_THROW(normalise_host(bad, false), Error) << bad;
}

TEST(JsonLines, FollowKeysAndElements) {
  auto lines = scan_json_lines("{\"a\": [1,\n {\"b\\\"\\u0041\": \"}]\"}],\n\"c\": {\"d\":\nnull}}");
  EXPECT_EQ(lines.line_of["a"], 1);
  EXPECT_EQ(lines.line_of["a[1]"], 2);
  EXPECT_EQ(lines.line_of["a[1].b\"A"], 2);
  EXPECT_EQ(lines.line_of["c.d"], 3);
}

}  // namespace
}  // namespace gantry::config
