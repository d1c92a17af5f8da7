#include "base/error.hpp"
#include "base/text.hpp"
#include "config/load.hpp"

namespace gantry::config {
namespace {

[[noreturn]] void bad_address(std::string_view host) {
  throw Error(Errc::invalid_argument, "invalid bind address format: " + std::string(host));
}

/// "host:port", "[v6]:port", ":port", "host" or "". Docker's defaults fill the gaps.
std::string normalise_tcp(std::string_view whole, std::string_view rest, bool tls) {
  while (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  std::string_view host = rest;
  std::string_view port;
  if (rest.starts_with('[')) {
    auto close = rest.find(']');
    if (close == std::string_view::npos) bad_address(whole);
    host = rest.substr(0, close + 1);
    port = rest.substr(close + 1);
    if (!port.empty() && port.front() != ':') bad_address(whole);
    if (!port.empty()) port.remove_prefix(1);
  } else if (auto colon = rest.rfind(':'); colon != std::string_view::npos) {
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
    if (host.find(':') != std::string_view::npos) bad_address(whole);
  }
  if (host.find_first_of("/?# ") != std::string_view::npos) bad_address(whole);
  std::string port_text = port.empty() ? (tls ? "2376" : "2375") : std::string(port);
  auto number = parse_int(port_text);
  if (!number || *number < 0 || *number > 65535) bad_address(whole);
  return "tcp://" + (host.empty() ? std::string("localhost") : std::string(host)) + ":" + port_text;
}

}  // namespace

std::string normalise_host(std::string_view host, bool tls) {
  host = trim(host);
  if (host.empty()) return std::string(kDefaultHost);
  auto scheme_end = host.find("://");
  if (scheme_end == std::string_view::npos) {
    if (host.front() == '/') bad_address(host);
    return normalise_tcp(host, host, tls);
  }
  std::string_view scheme = host.substr(0, scheme_end);
  std::string_view rest = host.substr(scheme_end + 3);
  if (scheme == "tcp") return normalise_tcp(host, rest, tls);
  if (scheme == "fd") return std::string(host);
  if (scheme != "unix") bad_address(host);
  if (rest.empty()) return std::string(kDefaultHost);
  // Source: unix(7), sun_path holds 107 bytes and a zero.
  if (rest.front() != '/' || rest.size() > 107) bad_address(host);
  return std::string(host);
}

bool tls_enabled(const Config& config) { return config.tlsverify.has_value() || config.tls.value_or(false); }

}  // namespace gantry::config
