#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

/// What clients write into `LogConfig`: drivers, their options, and what Docker says of wrong ones.
namespace gantry::logs {

using Options = std::map<std::string, std::string>;

/// The drivers that a container can name, sorted; "none" is not among them, as in Docker's `info`.
const std::vector<std::string_view>& driver_names();
/// Drivers whose log is a file of ours, in the format of logs/format.hpp.
bool is_file_driver(std::string_view driver);
/// Drivers that send what is printed to a server.
bool is_remote_driver(std::string_view driver);

/// Every option that a driver takes.
std::vector<std::string> option_names(std::string_view driver);
/// Checks a container's or the daemon's choice, with Docker's texts; opens and resolves nothing. Throws
/// invalid_argument.
void validate_options(const std::string& driver, const Options& options);
/// A socket that an option names must exist: Docker checks it when the container is created. Throws invalid_argument.
/// Blocks on the file system.
void check_sockets_blocking(const std::string& driver, const Options& options);

/// `mode=non-blocking`, or a driver's own option to the same end: output is dropped rather than the process stopped.
bool drops_when_full(const std::string& driver, const Options& options);
/// Bytes of output that wait for a slow server or disk.
std::uint64_t buffer_size(const Options& options);
/// Whether a driver that sends its output away keeps a copy for `docker logs`.
bool keeps_cache(const std::string& driver, const Options& options);

/// A size as Docker's units package reads it: "20m", "512kb", "1.5 GiB", "100". Throws invalid_argument.
std::int64_t parse_bytes(std::string_view text);
/// Go's time.ParseDuration, in milliseconds: "1s", "1m30s", "250ms", "1.5h". Throws invalid_argument.
std::int64_t parse_duration_ms(const std::string& text);
/// Go's strconv.ParseBool. Throws invalid_argument.
bool parse_bool(const std::string& text);

/// A server's address.
struct Address {
  std::string scheme;  // "tcp", "udp", "tcp+tls", "tls", "unix", "unixgram"; empty: none was given
  std::string host;
  std::string port;
  std::string path;  // unix, unixgram
  friend bool operator==(const Address&, const Address&) = default;
};
/// "unix:///dev/log", "udp://host:514", "[::1]:514". Host and port are split as Go's net.SplitHostPort does it; a
/// missing port becomes `default_port`. Without a scheme it gets `default_scheme`; if that is empty, or the address is
/// malformed, it throws invalid_argument.
Address parse_address(const std::string& text, std::string_view default_scheme, std::string_view default_port);

/// A syslog facility's number (0 to 23): a name, a number, or nothing for "daemon". Throws invalid_argument.
int parse_facility(const std::string& text);

}  // namespace gantry::logs
