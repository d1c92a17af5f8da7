#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Readers of values in instructions, as Go reads them. What throws, throws Error(invalid_argument).
namespace gantry::dockerfile {

/// 1 t T TRUE true True and the opposites; nullopt for anything else.
std::optional<bool> parse_bool(std::string_view text);

/// `1h30m`, `1.5s`, `100ms`, `0`. Throws `time: invalid duration "x"`, `time: missing unit in duration "5"`, ….
std::chrono::nanoseconds parse_duration(std::string_view text);

/// One record of comma separated values with `"` quotes. Throws `parse error on line 1, column N: …`.
std::vector<std::string> parse_csv_record(std::string_view text);

/// One word of EXPOSE: `[ip:][hostPort:]port[-end][/proto]`.
struct ExposedPorts {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
  std::string proto;         // tcp, udp or sctp
  bool has_mapping = false;  // an address or host port, which EXPOSE ignores
  bool proto_not_lower = false;
  std::vector<std::string> list() const;  // "80/tcp" …
};
/// Throws `invalid containerPort: x`, `invalid proto: x`, `no port specified: x<empty>`, ….
ExposedPorts parse_exposed_ports(std::string_view word);

/// Checks a `--chmod` value: octal up to 07777, or chmod(1)'s symbolic form. Throws `invalid chmod parameter: …`.
/// The octal value, or nullopt for a symbolic one.
std::optional<std::uint32_t> check_chmod(std::string_view text);

/// Checks a STOPSIGNAL: any number but 0, or a name with or without SIG. Throws `invalid signal: x`.
void check_signal(std::string_view text);

/// Like Go's path.Clean: no `.`, no `..` that can be resolved, single slashes; "." for "".
std::string clean_path(std::string_view path);

}  // namespace gantry::dockerfile
