#include "logs/options.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::logs {
namespace {

std::string refusal(const std::string& driver, const Options& options) {
  try {
    validate_options(driver, options);
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

TEST(LogOptions, UnknownOnesAreRefusedInEachDriversWords) {
  EXPECT_EQ(refusal("json-file", {{"x", ""}}), "unknown log opt 'x' for json-file log driver");
  EXPECT_EQ(refusal("local", {{"x", ""}}), "unknown log opt 'x' for log driver local");
  EXPECT_EQ(refusal("syslog", {{"max-size", "1m"}}), "unknown log opt 'max-size' for syslog log driver");
  EXPECT_EQ(refusal("fluentd", {{"x", ""}}), "unknown log opt 'x' for fluentd log driver");
  EXPECT_EQ(refusal("gelf", {{"gelf-address", "udp://a:1"}, {"x", ""}}), "unknown log opt \"x\" for gelf log driver");
  EXPECT_EQ(refusal("journald", {{"x", ""}}), "unknown log opt 'x' for journald log driver");
  EXPECT_EQ(refusal("x", {}), "logger: no log driver named 'x' is registered");
  EXPECT_EQ(refusal("none", {{"x", ""}, {"mode", "wrong"}}), "");
}

TEST(LogOptions, ModeAndBufferBelongTogether) {
  EXPECT_EQ(refusal("json-file", {{"mode", "x"}}), "logger: logging mode not supported: x");
  EXPECT_EQ(refusal("json-file", {{"max-buffer-size", "1m"}}),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'");
  EXPECT_EQ(refusal("json-file", {{"mode", "non-blocking"}, {"max-buffer-size", "1m"}}), "");
  EXPECT_EQ(refusal("json-file", {{"mode", "non-blocking"}, {"max-buffer-size", "1q"}}),
            "error parsing option max-buffer-size: invalid size: '1q'");
  EXPECT_TRUE(drops_when_full("syslog", {{"mode", "non-blocking"}}));
  EXPECT_TRUE(drops_when_full("fluentd", {{"fluentd-async", "true"}}));
  EXPECT_FALSE(drops_when_full("fluentd", {{"fluentd-async", "0"}}));
  EXPECT_EQ(buffer_size({}), 1'000'000u);
  EXPECT_EQ(buffer_size({{"max-buffer-size", "4m"}}), 4u << 20);
}

TEST(LogOptions, AddressesAreChecked) {
  EXPECT_EQ(refusal("syslog", {{"syslog-address", "localhost:514"}}),
            "syslog-address should be in form proto://address, got localhost:514");
  EXPECT_EQ(refusal("syslog", {{"syslog-address", "tcp://[::1]:5514"}}), "");
  EXPECT_EQ(refusal("syslog", {{"syslog-facility", "local9"}}), "invalid syslog facility");
  EXPECT_EQ(refusal("syslog", {{"syslog-format", "rfc1"}}), "Invalid syslog format");
  EXPECT_EQ(refusal("gelf", {}), "gelf-address is a required parameter");
  EXPECT_EQ(refusal("gelf", {{"gelf-address", "unix:///x"}}), "gelf: endpoint needs to be TCP or UDP");
  EXPECT_EQ(refusal("gelf", {{"gelf-address", "udp://host"}}),
            "gelf: please provide gelf-address as proto://host:port");
  EXPECT_EQ(refusal("gelf", {{"gelf-address", "tcp://h:1"}, {"gelf-compression-type", "gzip"}}),
            "compression is only supported on UDP");
  EXPECT_EQ(refusal("gelf", {{"gelf-address", "udp://h:1"}, {"gelf-tcp-max-reconnect", "1"}}),
            "\"gelf-tcp-max-reconnect\" is only valid for TCP");
  EXPECT_NE(refusal("fluentd", {{"fluentd-address", "tcp://a:b:c"}}).find("invalid fluentd-address tcp://a:b:c"),
            std::string::npos);
  EXPECT_EQ(refusal("fluentd", {{"fluentd-async", "1"}, {"fluentd-async-connect", "1"}}),
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect");
  EXPECT_EQ(refusal("fluentd", {{"fluentd-read-timeout", "1.5s"}, {"fluentd-write-timeout", "0"}}), "");
  EXPECT_EQ(refusal("fluentd", {{"fluentd-write-timeout", "-1ms"}}),
            "invalid value for fluentd-write-timeout: value must be a duration that is non-negative");
  EXPECT_EQ(refusal("fluentd", {{"fluentd-read-timeout", "5"}}),
            "invalid value for fluentd-read-timeout: value must be a duration: time: missing unit in duration \"5\"");
}

TEST(LogOptions, AddressesAreTakenApart) {
  EXPECT_EQ(parse_address("udp://10.0.0.1", "", "514"), (Address{"udp", "10.0.0.1", "514", ""}));
  EXPECT_EQ(parse_address("tcp+tls://log.example:6514/", "", "514"), (Address{"tcp+tls", "log.example", "6514", ""}));
  EXPECT_EQ(parse_address("[::1]:24", "tcp", "24224"), (Address{"tcp", "::1", "24", ""}));
  EXPECT_EQ(parse_address("", "tcp", "24224"), (Address{"tcp", "127.0.0.1", "24224", ""}));
  EXPECT_EQ(parse_address("unix:///run/x.sock", "", ""), (Address{"unix", "", "", "/run/x.sock"}));
  EXPECT_THROW(parse_address("nothing", "", ""), Error);
  EXPECT_THROW(parse_address("tcp://a:99999", "", ""), Error);
}

TEST(LogOptions, SizesAndDurationsAreGos) {
  EXPECT_EQ(parse_bytes("1.5m"), 3 << 19);
  EXPECT_EQ(parse_bytes("512kb"), 512 << 10);
  EXPECT_EQ(parse_bytes("7"), 7);
  EXPECT_THROW(parse_bytes("-1"), Error);
  EXPECT_THROW(parse_bytes(""), Error);
  EXPECT_EQ(parse_duration_ms("1m30s"), 90'000);
  EXPECT_EQ(parse_duration_ms("1.5s"), 1500);
  EXPECT_EQ(parse_duration_ms("0"), 0);
  EXPECT_THROW(parse_duration_ms("10"), Error);
  EXPECT_THROW(parse_duration_ms("s"), Error);
}

}  // namespace
}  // namespace gantry::logs
