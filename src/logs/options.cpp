#include "logs/options.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>

#include <sys/stat.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::logs {
namespace {

constexpr std::uint64_t kDefaultBuffer = 1'000'000;
constexpr std::uint64_t kLargestBuffer = 1 << 30;

[[noreturn]] void invalid(std::string text) { throw Error(Errc::invalid_argument, std::move(text)); }

std::string value_of(const Options& options, const char* key) {
  const auto it = options.find(key);
  return it == options.end() ? std::string() : it->second;
}

using Names = std::vector<std::string_view>;

/// What every driver takes besides its own: Docker's way of delivering, and the copy for `docker logs`.
const Names kCommon{"mode",           "max-buffer-size",
                    "cache-disabled", "cache-max-size",
                    "cache-max-file", "cache-compress",
                    "cache-labels",   "cache-labels-regex",
                    "cache-env",      "cache-env-regex",
                    "cache-tag",      "labels",
                    "labels-regex",   "env",
                    "env-regex",      "tag"};
const Names kFile{"max-size", "max-file", "compress"};
const Names kSyslog{"syslog-address", "syslog-facility",        "syslog-tls-ca-cert", "syslog-tls-cert",
                    "syslog-tls-key", "syslog-tls-skip-verify", "syslog-format"};
const Names kFluentd{"fluentd-address",
                     "fluentd-async",
                     "fluentd-async-connect",
                     "fluentd-async-reconnect-interval",
                     "fluentd-buffer-limit",
                     "fluentd-max-retries",
                     "fluentd-request-ack",
                     "fluentd-retry-wait",
                     "fluentd-sub-second-precision",
                     "fluentd-write-timeout",
                     "fluentd-read-timeout"};
const Names kGelf{"gelf-address", "gelf-compression-level", "gelf-compression-type", "gelf-tcp-max-reconnect",
                  "gelf-tcp-reconnect-delay"};

[[noreturn]] void unknown_option(std::string_view driver, const std::string& key) {
  // The words differ from driver to driver in Docker, too.
  if (driver == "gelf") invalid("unknown log opt " + quote(key) + " for gelf log driver");
  if (driver == "local") invalid("unknown log opt '" + key + "' for log driver local");
  invalid("unknown log opt '" + key + "' for " + std::string(driver) + " log driver");
}

/// "scheme://rest" with a scheme that Docker's drivers know.
bool is_transport_url(std::string_view text) {
  for (const std::string_view scheme : {"tcp://", "tcp+tls://", "tls://", "udp://", "unix://", "unixgram://"})
    if (text.starts_with(scheme)) return true;
  return false;
}

void validate_syslog(const Options& options) {
  const std::string address = value_of(options, "syslog-address");
  if (!address.empty() && !is_transport_url(address))
    invalid("syslog-address should be in form proto://address, got " + address);
  if (!address.empty()) (void)parse_address(address, "", "514");
  (void)parse_facility(value_of(options, "syslog-facility"));
  const std::string format = value_of(options, "syslog-format");
  if (!format.empty() && format != "rfc3164" && format != "rfc5424" && format != "rfc5424micro")
    invalid("Invalid syslog format");
}

void validate_timeout(const Options& options, const std::string& key) {
  const std::string text = value_of(options, key.c_str());
  if (text.empty()) return;
  const std::string refusal = "invalid value for " + key + ": value must be a duration";
  try {
    if (parse_duration_ms(text) < 0 || text.starts_with('-')) invalid(refusal + " that is non-negative");
  } catch (Error& e) {
    if (!e.message().starts_with(refusal)) e.prefix(refusal);
    throw;
  }
}

void validate_fluentd(const Options& options) {
  try {
    (void)parse_address(value_of(options, "fluentd-address"), "tcp", "24224");
  } catch (Error& e) {
    e.prefix("invalid fluentd-address " + value_of(options, "fluentd-address"));
    throw;
  }
  if (const auto text = value_of(options, "fluentd-buffer-limit"); !text.empty()) (void)parse_bytes(text);
  if (const auto text = value_of(options, "fluentd-retry-wait"); !text.empty()) (void)parse_duration_ms(text);
  validate_timeout(options, "fluentd-write-timeout");
  validate_timeout(options, "fluentd-read-timeout");
  if (const auto text = value_of(options, "fluentd-max-retries"); !text.empty() && parse_int(text).value_or(-1) < 0)
    invalid("strconv.ParseUint: parsing " + quote(text) + ": invalid syntax");
  if (!value_of(options, "fluentd-async").empty() && !value_of(options, "fluentd-async-connect").empty())
    invalid("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect");
  for (const char* key :
       {"fluentd-async", "fluentd-async-connect", "fluentd-sub-second-precision", "fluentd-request-ack"})
    if (const auto text = value_of(options, key); !text.empty()) (void)parse_bool(text);
  const std::string interval = value_of(options, "fluentd-async-reconnect-interval");
  if (interval.empty()) return;
  const std::int64_t ms = parse_duration_ms(interval);
  if (ms != 0 && (ms < 100 || ms > 10'000))
    invalid("invalid value for fluentd-async-reconnect-interval: value (" + quote(interval) +
            ") must be between 100ms and 10s");
}

void validate_gelf(const Options& options) {
  const std::string text = value_of(options, "gelf-address");
  if (text.empty()) invalid("gelf-address is a required parameter");
  if (!is_transport_url(text)) invalid("gelf-address should be in form proto://address, got " + text);
  Address address;
  if (!text.starts_with("udp://") && !text.starts_with("tcp://")) invalid("gelf: endpoint needs to be TCP or UDP");
  try {
    address = parse_address(text, "", "");
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
  }
  if (address.port.empty()) invalid("gelf: please provide gelf-address as proto://host:port");
  for (const auto& [key, value] : options) {
    const bool level = key == "gelf-compression-level";
    if (level || key == "gelf-compression-type") {
      if (address.scheme != "udp") invalid("compression is only supported on UDP");
      const auto number = parse_int(value);
      const bool good =
          level ? number && *number >= -1 && *number <= 9 : value == "gzip" || value == "zlib" || value == "none";
      if (!good) invalid("unknown value " + quote(value) + " for log opt " + quote(key) + " for gelf log driver");
    }
    if (key == "gelf-tcp-max-reconnect" || key == "gelf-tcp-reconnect-delay") {
      if (address.scheme != "tcp") invalid(quote(key) + " is only valid for TCP");
      if (parse_int(value).value_or(-1) < 0) invalid(quote(key) + " must be a positive integer");
    }
  }
}

}  // namespace

const std::vector<std::string_view>& driver_names() {
  static const std::vector<std::string_view> names{"fluentd", "gelf", "journald", "json-file", "local", "syslog"};
  return names;
}

bool is_file_driver(std::string_view driver) { return driver == "json-file" || driver == "local"; }

bool is_remote_driver(std::string_view driver) {
  return driver == "syslog" || driver == "fluentd" || driver == "gelf" || driver == "journald";
}

std::vector<std::string> option_names(std::string_view driver) {
  static const Names none;
  const Names& own = is_file_driver(driver) ? kFile
                     : driver == "syslog"   ? kSyslog
                     : driver == "fluentd"  ? kFluentd
                     : driver == "gelf"     ? kGelf
                                            : none;
  std::vector<std::string> names(kCommon.begin(), kCommon.end());
  names.insert(names.end(), own.begin(), own.end());
  return names;
}

void validate_options(const std::string& driver, const Options& options) {
  if (driver == "none") return;
  const std::string mode = value_of(options, "mode");
  if (!mode.empty() && mode != "blocking" && mode != "non-blocking")
    invalid("logger: logging mode not supported: " + mode);
  if (options.contains("max-buffer-size")) {
    if (mode != "non-blocking") invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
    try {
      (void)parse_bytes(value_of(options, "max-buffer-size"));
    } catch (Error& e) {
      e.prefix("error parsing option max-buffer-size");
      throw;
    }
  }
  const std::string disabled = value_of(options, "cache-disabled");
  try {
    if (!disabled.empty()) (void)parse_bool(disabled);
  } catch (const Error& e) {
    if (e.code() == Errc::invalid_argument) invalid("invalid value for option cache-disabled: " + disabled);
    throw;
  }
  const auto& names = driver_names();
  if (std::find(names.begin(), names.end(), driver) == names.end())
    invalid("logger: no log driver named '" + driver + "' is registered");
  const std::vector<std::string> known = option_names(driver);
  for (const auto& [key, value] : options)
    if (std::find(known.begin(), known.end(), key) == known.end()) unknown_option(driver, key);
  if (driver == "syslog") validate_syslog(options);
  if (driver == "fluentd") validate_fluentd(options);
  if (driver == "gelf") validate_gelf(options);
}

void check_sockets_blocking(const std::string& driver, const Options& options) {
  const std::string text = driver == "syslog" ? value_of(options, "syslog-address") : std::string();
  if (text.empty()) return;
  const Address address = parse_address(text, "", "514");
  struct stat info{};
  if (address.path.empty() || ::stat(address.path.c_str(), &info) == 0) return;
  std::string reason = std::strerror(errno);
  reason[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(reason[0])));
  invalid("stat " + address.path + ": " + reason);
}

bool drops_when_full(const std::string& driver, const Options& options) {
  if (value_of(options, "mode") == "non-blocking") return true;
  if (driver != "fluentd") return false;
  for (const char* key : {"fluentd-async", "fluentd-async-connect"})
    if (const auto text = value_of(options, key); !text.empty() && parse_bool(text)) return true;
  return false;
}

std::uint64_t buffer_size(const Options& options) {
  const std::string text = value_of(options, "max-buffer-size");
  if (text.empty()) return kDefaultBuffer;
  return std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::max<std::int64_t>(parse_bytes(text), 0)), 64 << 10,
                                   kLargestBuffer);
}

bool keeps_cache(const std::string& driver, const Options& options) {
  if (!is_remote_driver(driver)) return false;
  const std::string disabled = value_of(options, "cache-disabled");
  return disabled.empty() || !parse_bool(disabled);
}

std::int64_t parse_bytes(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, number);
  const bool whole = digits > 0 && error == std::errc() && end == text.data() + digits;
  std::string unit = to_lower(trim(text.substr(digits)));
  if (unit.size() > 1 && unit.ends_with("ib")) unit.resize(unit.size() - 2);
  else if (unit.size() > 1 && unit.ends_with('b')) unit.pop_back();
  const std::size_t power = unit.empty() || unit == "b" ? 0 : std::string_view("kmgtp").find(unit) + 1;
  if (!whole || unit.size() > 1 || (power == 0 && !unit.empty() && unit != "b"))
    invalid("invalid size: '" + std::string(text) + "'");
  const double bytes = number * std::pow(1024.0, static_cast<double>(power));
  if (!(bytes >= 0 && bytes < 9e18)) invalid("invalid size: '" + std::string(text) + "'");
  return static_cast<std::int64_t>(bytes);
}

std::int64_t parse_duration_ms(const std::string& text) {
  struct Unit {
    std::string_view name;
    double ms;
  };
  static constexpr Unit kUnits[] = {{"ns", 1e-6}, {"us", 1e-3}, {"µs", 1e-3}, {"ms", 1},
                                    {"s", 1e3},   {"m", 6e4},   {"h", 36e5}};
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest == "0") return 0;
  double total = 0;
  if (rest.empty()) invalid("time: invalid duration " + quote(text));
  while (!rest.empty()) {
    const std::size_t digits = std::min(rest.find_first_not_of("0123456789."), rest.size());
    double number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + digits, number);
    if (digits == 0 || error != std::errc() || end != rest.data() + digits)
      invalid("time: invalid duration " + quote(text));
    rest.remove_prefix(digits);
    const std::string_view name = rest.substr(0, std::min(rest.find_first_of("0123456789."), rest.size()));
    if (name.empty()) invalid("time: missing unit in duration " + quote(text));
    const auto* const unit =
        std::find_if(std::begin(kUnits), std::end(kUnits), [name](const Unit& u) { return u.name == name; });
    if (unit == std::end(kUnits)) invalid("time: unknown unit " + quote(name) + " in duration " + quote(text));
    total += number * unit->ms;
    rest.remove_prefix(name.size());
  }
  if (total > 9e15) invalid("time: invalid duration " + quote(text));
  return static_cast<std::int64_t>(negative ? -total : total);
}

bool parse_bool(const std::string& text) {
  for (const char* word : {"1", "t", "T", "TRUE", "true", "True"})
    if (text == word) return true;
  for (const char* word : {"0", "f", "F", "FALSE", "false", "False"})
    if (text == word) return false;
  invalid("strconv.ParseBool: parsing " + quote(text) + ": invalid syntax");
}

Address parse_address(const std::string& text, std::string_view default_scheme, std::string_view default_port) {
  Address address;
  std::string_view rest = text;
  if (is_transport_url(rest)) {
    address.scheme = rest.substr(0, rest.find("://"));
    rest.remove_prefix(address.scheme.size() + 3);
  } else {
    if (default_scheme.empty()) invalid("address " + text + ": missing protocol");
    address.scheme = default_scheme;
  }
  if (address.scheme == "unix" || address.scheme == "unixgram") {
    address.path = rest;
    if (!rest.starts_with('/')) invalid("address " + text + ": the socket's path must be absolute");
    return address;
  }
  rest = rest.substr(0, rest.find('/'));
  if (text.empty()) rest = "127.0.0.1";
  std::size_t colon = rest.rfind(':');
  if (rest.starts_with('[')) {
    const std::size_t close = rest.find(']');
    if (close == std::string_view::npos) invalid("address " + std::string(rest) + ": missing ']' in address");
    address.host = rest.substr(1, close - 1);
    colon = close + 1 < rest.size() && rest[close + 1] == ':' ? close + 1 : std::string_view::npos;
  } else {
    if (colon != std::string_view::npos && rest.find(':') != colon)
      invalid("address " + std::string(rest) + ": too many colons in address");
    address.host = rest.substr(0, colon);
  }
  address.port = colon == std::string_view::npos ? std::string(default_port) : std::string(rest.substr(colon + 1));
  const auto number = parse_int(address.port);
  if (!address.port.empty() && (!number || *number < 0 || *number > 65535))
    invalid("address " + std::string(rest) + ": invalid port");
  return address;
}

int parse_facility(const std::string& text) {
  static constexpr std::array<std::string_view, 24> kNames{
      "kern",   "user",   "mail",     "daemon", "auth",   "syslog", "lpr",    "news",
      "uucp",   "cron",   "authpriv", "ftp",    "",       "",       "",       "",
      "local0", "local1", "local2",   "local3", "local4", "local5", "local6", "local7"};
  if (text.empty()) return 3;
  const auto* const name = std::find(kNames.begin(), kNames.end(), text);
  if (name != kNames.end()) return static_cast<int>(name - kNames.begin());
  const auto number = parse_int(text);
  if (!number || *number < 0 || *number > 23) invalid("invalid syslog facility");
  return static_cast<int>(*number);
}

}  // namespace gantry::logs
