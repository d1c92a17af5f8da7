#include "dockerfile/values.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include <arpa/inet.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/utf8.hpp"

namespace gantry::dockerfile {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Errc::invalid_argument, message); }

std::optional<std::uint64_t> parse_unsigned(std::string_view text, int base, std::uint64_t limit) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > limit) return std::nullopt;
  return value;
}

struct Unit {
  std::string_view name;
  double nanoseconds;
};
constexpr std::array<Unit, 8> kUnits = {
    {{"ns", 1}, {"us", 1e3}, {"\u00b5s", 1e3}, {"\u03bcs", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}}};

struct PortRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};

std::optional<PortRange> parse_port_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = parse_unsigned(text.substr(0, dash), 10, 65535);
  const auto last = dash == std::string_view::npos ? first : parse_unsigned(text.substr(dash + 1), 10, 65535);
  if (!first || !last || *last < *first) return std::nullopt;
  return PortRange{*first, *last};
}

void check_address(std::string_view text) {
  std::string address(text);
  if (address.starts_with('[')) {
    if (!address.ends_with(']')) refuse("invalid IP address " + address + ": missing ']' in address");
    address = address.substr(1, address.size() - 2);
  }
  std::array<unsigned char, 16> bytes{};
  if (address.find('\0') != std::string::npos || (inet_pton(AF_INET, address.c_str(), bytes.data()) != 1 &&
                                                  inet_pton(AF_INET6, address.c_str(), bytes.data()) != 1))
    refuse("invalid IP address: " + address);
}

bool is_symbolic_mode(std::string_view text) {
  for (const std::string& clause : split(text, ',')) {
    std::size_t at = std::min(clause.find_first_not_of("ugoa"), clause.size());
    if (at == clause.size()) return false;
    while (at < clause.size()) {
      if (std::string_view("+-=").find(clause[at]) == std::string_view::npos) return false;
      at = std::min(clause.find_first_not_of("rwxXstugo", at + 1), clause.size());
    }
  }
  return true;
}

}  // namespace

std::optional<bool> parse_bool(std::string_view text) {
  for (const std::string_view yes : {"1", "t", "T", "TRUE", "true", "True"})
    if (text == yes) return true;
  for (const std::string_view no : {"0", "f", "F", "FALSE", "false", "False"})
    if (text == no) return false;
  return std::nullopt;
}

std::chrono::nanoseconds parse_duration(std::string_view text) {
  const auto invalid = [&] { refuse("time: invalid duration " + quote(text)); };
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest == "0") return std::chrono::nanoseconds(0);
  if (rest.empty()) invalid();
  double total = 0;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find_first_not_of("0123456789."), rest.size());
    const std::string_view number = rest.substr(0, end);
    double value = 0;
    const auto [stop, error] =
        std::from_chars(number.data(), number.data() + number.size(), value, std::chars_format::fixed);
    if (number.empty() || number == "." || error != std::errc() || stop != number.data() + number.size()) invalid();
    rest.remove_prefix(end);
    const std::size_t unit_end = std::min(rest.find_first_of("0123456789."), rest.size());
    const std::string_view name = rest.substr(0, unit_end);
    if (name.empty()) refuse("time: missing unit in duration " + quote(text));
    const auto unit = std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return u.name == name; });
    if (unit == kUnits.end()) refuse("time: unknown unit " + quote(name) + " in duration " + quote(text));
    total += value * unit->nanoseconds;
    rest.remove_prefix(unit_end);
  }
  if (total >= 9.2e18) invalid();
  const auto count = static_cast<std::int64_t>(std::llround(total));
  return std::chrono::nanoseconds(negative ? -count : count);
}

std::vector<std::string> parse_csv_record(std::string_view text) {
  std::vector<std::string> fields(1);
  const auto fail = [](std::size_t column, const std::string& reason) {
    refuse("parse error on line 1, column " + std::to_string(column + 1) + ": " + reason);
  };
  if (trim(text).empty()) refuse("EOF");
  bool at_start = true;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\n') break;  // one record
    if (text[at] == ',') {
      fields.emplace_back();
      at_start = true;
      continue;
    }
    if (text[at] != '"') {
      fields.back().push_back(text[at]);
      at_start = false;
      continue;
    }
    if (!at_start) fail(at, "bare \" in non-quoted-field");
    for (++at;; ++at) {
      if (at >= text.size()) fail(at, "extraneous or missing \" in quoted-field");
      if (text[at] != '"') {
        fields.back().push_back(text[at]);
      } else if (at + 1 < text.size() && text[at + 1] == '"') {
        fields.back().push_back('"');
        ++at;
      } else {
        break;
      }
    }
    if (at + 1 < text.size() && text[at + 1] != ',') fail(at, "extraneous or missing \" in quoted-field");
    at_start = false;
  }
  return fields;
}

ExposedPorts parse_exposed_ports(std::string_view word) {
  ExposedPorts result;
  const std::vector<std::string> parts = split(word, ':');
  const std::string& container = parts.back();
  const std::string host_port = parts.size() > 1 ? parts[parts.size() - 2] : "";
  const std::string address =
      parts.size() > 2 ? std::string(word.substr(0, word.size() - container.size() - host_port.size() - 2)) : "";
  const auto [port, written_proto] = split_once(container, '/');
  if (port.empty()) refuse("no port specified: " + container + "<empty>");
  std::string proto = to_lower(written_proto);
  result.proto_not_lower = proto != written_proto;
  if (proto.empty()) proto = "tcp";
  if (proto != "tcp" && proto != "udp" && proto != "sctp") refuse("invalid proto: " + proto);
  if (!address.empty()) check_address(address);
  const auto range = parse_port_range(port);
  if (!range) refuse("invalid containerPort: " + std::string(port));
  if (!host_port.empty()) {
    const auto host = parse_port_range(host_port);
    if (!host) refuse("invalid hostPort: " + host_port);
    if (range->first != range->last && range->last - range->first != host->last - host->first)
      refuse("invalid ranges specified for container and host Ports: " + std::string(port) + " and " + host_port);
  }
  result.has_mapping = !address.empty() || !host_port.empty();
  result.first = static_cast<std::uint16_t>(range->first);
  result.last = static_cast<std::uint16_t>(range->last);
  result.proto = proto;
  return result;
}

std::vector<std::string> ExposedPorts::list() const {
  std::vector<std::string> ports;
  for (int number = first; number <= last; ++number) ports.push_back(std::to_string(number) + "/" + proto);
  return ports;
}

std::optional<std::uint32_t> check_chmod(std::string_view text) {
  const auto octal = parse_unsigned(text, 8, 07777);
  if (octal) return static_cast<std::uint32_t>(*octal);
  if (!is_symbolic_mode(text))
    refuse("invalid chmod parameter: '" + std::string(text) + "'. it should be octal string and between 0 and 07777");
  return std::nullopt;
}

void check_signal(std::string_view text) {
  static constexpr std::array<std::string_view, 36> kNames = {
      "ABRT", "ALRM", "BUS",  "CHLD", "CLD",  "CONT", "FPE",    "HUP",    "ILL",  "INT",  "IO",    "IOT",
      "KILL", "PIPE", "POLL", "PROF", "PWR",  "QUIT", "SEGV",   "STKFLT", "STOP", "SYS",  "TERM",  "TRAP",
      "TSTP", "TTIN", "TTOU", "URG",  "USR1", "USR2", "VTALRM", "WINCH",  "XCPU", "XFSZ", "RTMIN", "RTMAX"};
  if (const auto number = parse_int(text)) {
    if (*number == 0) refuse("invalid signal: " + std::string(text));
    return;  // Docker takes every other number
  }
  std::string name = to_upper(text);
  if (name.starts_with("SIG")) name = name.substr(3);
  if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) return;
  if (name.starts_with("RTMIN+") || name.starts_with("RTMAX-")) {
    const auto offset =
        parse_unsigned(std::string_view(name).substr(6), 10, name[2] == 'M' && name[3] == 'I' ? 15 : 14);
    if (offset && *offset > 0) return;
  }
  refuse("invalid signal: " + std::string(text));
}

std::string clean_path(std::string_view path) {
  const bool rooted = path.starts_with('/');
  std::vector<std::string_view> kept;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      kept.push_back(part);
    } else if (!kept.empty() && kept.back() != "..") {
      kept.pop_back();
    } else if (!rooted) {
      kept.push_back(part);
    }
  }
  std::string out = rooted ? "/" : "";
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i > 0) out.push_back('/');
    out += kept[i];
  }
  return out.empty() ? "." : out;
}

}  // namespace gantry::dockerfile
