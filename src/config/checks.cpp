#include "config/checks.hpp"

#include <charconv>

#include <algorithm>
#include <array>
#include <set>

#include <arpa/inet.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "logs/options.hpp"

namespace gantry::config::check {
namespace {

using Result = std::optional<Finding>;

bool is_ipv4(const std::string& text) {
  in_addr address{};
  return inet_pton(AF_INET, text.c_str(), &address) == 1;
}
bool is_ipv6(const std::string& text) {
  in6_addr address{};
  return inet_pton(AF_INET6, text.c_str(), &address) == 1;
}
bool is_ip(const std::string& text) { return is_ipv4(text) || is_ipv6(text); }

/// The prefix length of a CIDR, or nullopt if it is not one.
std::optional<int> prefix_length(const std::string& cidr) {
  auto [address, bits] = split_once(cidr, '/');
  auto length = parse_int(bits);
  if (!length || *length < 0) return std::nullopt;
  if (is_ipv4(std::string(address)) && *length <= 32) return static_cast<int>(*length);
  if (is_ipv6(std::string(address)) && *length <= 128) return static_cast<int>(*length);
  return std::nullopt;
}
bool is_cidr(const std::string& text, bool v6) {
  return prefix_length(text) && (text.find(':') != std::string::npos) == v6;
}

Result one_of(const std::string& value, const std::vector<std::string>& allowed, std::string message) {
  if (std::ranges::find(allowed, value) != allowed.end()) return std::nullopt;
  return Finding{std::move(message), join(allowed, ", "), closest_word(value, allowed).value_or("")};
}
Result absolute(const std::string& path) {
  if (!path.empty() && path.front() == '/') return std::nullopt;
  return Finding{quote(path) + " is not an absolute path", "a path that starts with /", ""};
}
Result cidr(const std::string& value, bool v6) {
  if (value.empty() || is_cidr(value, v6)) return std::nullopt;
  return Finding{"invalid CIDR address: " + value, v6 ? "such as fd00:1::1/64" : "such as 192.168.5.1/24", ""};
}
Result address(const std::string& value, bool v6) {
  if (value.empty() || (v6 ? is_ipv6(value) : is_ipv4(value))) return std::nullopt;
  return Finding{value + " is not an ip address", v6 ? "an IPv6 address" : "an IPv4 address", ""};
}
Result at_least(std::int64_t value, std::int64_t least, std::string_view what) {
  if (value >= least) return std::nullopt;
  return Finding{"invalid " + std::string(what) + ": " + std::to_string(value), std::to_string(least) + " or more", ""};
}
Result proxy(const std::string& value) {
  if (value.empty() || value.find("://") == std::string::npos) return std::nullopt;  // host:port alone is fine
  for (std::string_view scheme : {"http://", "https://", "socks5://", "socks5h://"})
    if (value.starts_with(scheme)) return std::nullopt;
  return Finding{"the proxy's scheme is not supported", "http://host:port, https:// or socks5://", ""};
}

const std::vector<std::string> kUlimits{"core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue", "nice",
                                        "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack"};

}  // namespace

Result data_root(const Config& c) { return absolute(c.data_root); }
Result exec_root(const Config& c) { return absolute(c.exec_root); }
Result pidfile(const Config& c) { return c.pidfile.empty() ? std::nullopt : absolute(c.pidfile); }
Result init_path(const Config& c) { return c.init_path.empty() ? std::nullopt : absolute(c.init_path); }

Result labels(const Config& c) {
  std::map<std::string, std::string> seen;
  for (const std::string& label : c.labels) {
    auto [key, value] = split_once(label, '=');
    if (key.empty() || label.find('=') == std::string::npos)
      return Finding{"bad attribute format: " + label, "key=value", ""};
    auto [at, fresh] = seen.emplace(key, label);
    if (!fresh && at->second != label)
      return Finding{"conflict labels for " + at->second + " and " + label, "one value per key", ""};
  }
  return std::nullopt;
}

Result log_level(const Config& c) {
  return one_of(c.log_level, {"debug", "info", "warn", "error", "fatal"}, "invalid logging level: " + c.log_level);
}
Result log_format(const Config& c) {
  return one_of(c.log_format, {"text", "json"}, "invalid log format: " + c.log_format);
}
Result log_driver(const Config& c) {
  std::vector<std::string> known{"none"};
  for (const std::string_view name : logs::driver_names()) known.emplace_back(name);
  return one_of(c.log_driver, known, "logger: no log driver named '" + c.log_driver + "' is registered");
}
Result log_opts(const Config& c) {
  if (log_driver(c)) return std::nullopt;  // said already
  try {
    logs::validate_options(c.log_driver, c.log_opts);
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    const std::vector<std::string> known = logs::option_names(c.log_driver);
    for (const auto& [key, value] : c.log_opts)
      if (auto bad = one_of(key, known, e.message())) return bad;
    return Finding{e.message(), "", ""};
  }
  if (!logs::is_file_driver(c.log_driver)) return std::nullopt;
  for (const auto& [key, value] : c.log_opts) {
    if (key == "max-size" && value != "-1" && parse_size(value).value_or(0) <= 0)
      return Finding{"invalid max-size: " + quote(value), "a size such as 20m, or -1 for no limit", ""};
    if (key == "max-file" && parse_int(value).value_or(0) < 1)
      return Finding{"max-file cannot be less than 1: " + quote(value), "a number of files, in quotes", ""};
    if (key == "compress" && value != "true" && value != "false")
      return Finding{"invalid compress: " + quote(value), "\"true\" or \"false\"", ""};
  }
  return std::nullopt;
}

Result runtimes(const Config& c) {
  for (const auto& [name, runtime] : c.runtimes) {
    if (name == "runc") return Finding{"runtime name 'runc' is reserved", "any other name", ""};
    if (runtime.path.empty() && runtime.type.empty())
      return Finding{"runtime " + name + ": either a runtimeType or a path must be configured", "", ""};
    if (!runtime.path.empty() && !runtime.type.empty())
      return Finding{"runtime " + name + ": cannot configure both runtimeType and path", "", ""};
  }
  return std::nullopt;
}
Result default_runtime(const Config& c) {
  std::vector<std::string> known{"runc", "io.containerd.runc.v2"};
  for (const auto& [name, runtime] : c.runtimes) known.push_back(name);
  return one_of(c.default_runtime, known, "specified default runtime '" + c.default_runtime + "' does not exist");
}
Result exec_opts(const Config& c) {
  for (const std::string& opt : c.exec_opts) {
    auto [name, value] = split_once(opt, '=');
    if (opt.find('=') == std::string::npos)
      return Finding{"invalid exec-opt (" + opt + "): must be formatted 'opt=value'", "native.cgroupdriver=cgroupfs",
                     ""};
    if (name != "native.cgroupdriver")
      return Finding{"invalid exec-opt (" + opt + "): unknown option: '" + std::string(name) + "'",
                     "native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd",
                     closest_word(name, {"native.cgroupdriver"}).value_or("")};
    if (auto bad = one_of(std::string(value), {"cgroupfs", "systemd"},
                          "native.cgroupdriver option " + std::string(value) + " not supported"))
      return bad;
  }
  return std::nullopt;
}
Result default_cgroupns_mode(const Config& c) {
  if (c.default_cgroupns_mode.empty()) return std::nullopt;
  return one_of(c.default_cgroupns_mode, {"private", "host"},
                "default cgroup namespace mode (" + c.default_cgroupns_mode + ") is invalid");
}
Result default_ipc_mode(const Config& c) {
  return one_of(c.default_ipc_mode, {"shareable", "private"},
                "default IPC mode setting (" + c.default_ipc_mode + R"() is invalid; use "shareable" or "private")");
}
Result default_shm_size(const Config& c) { return at_least(c.default_shm_size, 1, "default shm size"); }
Result default_ulimits(const Config& c) {
  for (const auto& [name, limit] : c.default_ulimits) {
    if (auto bad = one_of(name, kUlimits, "invalid ulimit type: " + name)) return bad;
    if (limit.hard != -1 && (limit.soft > limit.hard || limit.soft == -1))
      return Finding{"ulimit " + name + ": soft limit must be less than or equal to hard limit: " +
                         std::to_string(limit.soft) + " > " + std::to_string(limit.hard),
                     "", ""};
  }
  return std::nullopt;
}
Result seccomp_profile(const Config& c) {
  if (c.seccomp_profile == "builtin" || c.seccomp_profile == "unconfined" || c.seccomp_profile.empty())
    return std::nullopt;
  if (c.seccomp_profile.front() == '/' && ::access(c.seccomp_profile.c_str(), R_OK) == 0) return std::nullopt;
  return Finding{"opening seccomp profile (" + c.seccomp_profile + ") failed",
                 "builtin, unconfined or the path of a readable file",
                 closest_word(c.seccomp_profile, {"builtin", "unconfined"}).value_or("")};
}
Result storage_driver(const Config& c) {
  if (c.storage_driver.empty()) return std::nullopt;
  return one_of(c.storage_driver, {"overlay2", "overlayfs"}, "driver not supported: " + c.storage_driver);
}

Result storage_opts(const Config& c) {
  for (const std::string& opt : c.storage_opts) {
    const auto [name, value] = split_once(opt, '=');
    if (opt.find('=') == std::string::npos)
      return Finding{"unable to parse storage-opt key/value: " + opt, "overlay2.override_kernel_check=true", ""};
    if (name == "overlay2.size")
      return Finding{"storage Option overlay2.size not supported: project quotas are not used", "", ""};
    if (name != "overlay2.override_kernel_check")
      return Finding{"overlay2: unknown option " + std::string(name), "overlay2.override_kernel_check",
                     closest_word(name, {"overlay2.override_kernel_check"}).value_or("")};
  }
  return std::nullopt;
}
Result cpu_rt_period(const Config& c) { return at_least(c.cpu_rt_period, 0, "CPU real-time period"); }
Result cpu_rt_runtime(const Config& c) {
  if (c.cpu_rt_period != 0 && c.cpu_rt_runtime > c.cpu_rt_period)
    return Finding{"cpu real-time runtime cannot be higher than cpu real-time period", "", ""};
  return at_least(c.cpu_rt_runtime, 0, "CPU real-time runtime");
}

Result insecure_registries(const Config& c) {
  for (const std::string& registry : c.insecure_registries) {
    if (registry.find("://") != std::string::npos)
      return Finding{"insecure registry " + registry + " should not contain '://'", "host, host:port or a CIDR",
                     registry.substr(registry.find("://") + 3)};
    if (registry.empty()) return Finding{"an insecure registry must not be empty", "host, host:port or a CIDR", ""};
  }
  return std::nullopt;
}
Result registry_mirrors(const Config& c) {
  for (const std::string& mirror : c.registry_mirrors) {
    if (mirror.starts_with("https://") || mirror.starts_with("http://")) {
      auto rest = mirror.substr(mirror.find("://") + 3);
      if (rest.empty() || rest.find_first_of("@?# ") != std::string::npos)
        return Finding{"invalid mirror: " + quote(mirror) + " must be a host with an optional port and path",
                       "https://mirror.example", ""};
      continue;
    }
    return Finding{
        "invalid mirror: no scheme specified for " + quote(mirror) + ": must use either 'https://' or 'http://'",
        "https://mirror.example", "https://" + mirror};
  }
  return std::nullopt;
}
Result max_concurrent_downloads(const Config& c) {
  return at_least(c.max_concurrent_downloads, 1, "max concurrent downloads");
}
Result max_concurrent_uploads(const Config& c) {
  return at_least(c.max_concurrent_uploads, 1, "max concurrent uploads");
}
Result image_keep_free(const Config& c) { return at_least(c.image_keep_free, 0, "space to keep free"); }
Result max_download_attempts(const Config& c) { return at_least(c.max_download_attempts, 1, "max download attempts"); }
Result http_proxy(const Config& c) { return proxy(c.http_proxy); }
Result https_proxy(const Config& c) { return proxy(c.https_proxy); }

Result bridge(const Config& c) {
  // Source: IFNAMSIZ is 16 with the final zero; dev_valid_name() in net/core/dev.c.
  if (c.bridge.size() < 16 && c.bridge.find_first_of("/: \t\n") == std::string::npos && c.bridge != "." &&
      c.bridge != "..")
    return std::nullopt;
  return Finding{quote(c.bridge) + " is not the name of a network interface", "1 to 15 characters without / and :", ""};
}
Result bip(const Config& c) { return cidr(c.bip, false); }
Result bip6(const Config& c) { return cidr(c.bip6, true); }
Result fixed_cidr(const Config& c) { return cidr(c.fixed_cidr, false); }
Result fixed_cidr_v6(const Config& c) { return cidr(c.fixed_cidr_v6, true); }
Result default_gateway(const Config& c) { return address(c.default_gateway, false); }
Result default_gateway_v6(const Config& c) { return address(c.default_gateway_v6, true); }
Result default_address_pools(const Config& c) {
  for (const AddressPool& pool : c.default_address_pools) {
    auto length = prefix_length(pool.base);
    if (!length) return Finding{"invalid base pool " + quote(pool.base), "a CIDR such as 10.200.0.0/16", ""};
    bool v6 = pool.base.find(':') != std::string::npos;
    if (pool.size < *length || pool.size > (v6 ? 128 : 32))
      return Finding{"invalid subnet size " + std::to_string(pool.size) + " for pool " + pool.base,
                     std::to_string(*length) + " to " + (v6 ? "128" : "32"), ""};
  }
  return std::nullopt;
}
Result dns(const Config& c) {
  for (const std::string& server : c.dns)
    if (!is_ip(server)) return Finding{server + " is not an ip address", "IPv4 or IPv6 addresses", ""};
  return std::nullopt;
}
Result dns_search(const Config& c) {
  for (const std::string& domain : c.dns_search) {
    if (domain == ".") continue;
    if (domain.empty() || domain.size() > 255 || domain.find_first_of(" \t/:@") != std::string::npos)
      return Finding{domain + " is not a valid domain", "domain names", ""};
  }
  return std::nullopt;
}
Result host_gateway_ips(const Config& c) {
  for (const std::string& gateway : c.host_gateway_ips)
    if (!is_ip(gateway)) return Finding{gateway + " is not an ip address", "IPv4 or IPv6 addresses", ""};
  return std::nullopt;
}
Result ip(const Config& c) {
  if (is_ip(c.ip)) return std::nullopt;
  return Finding{c.ip + " is not an ip address", "an IPv4 or IPv6 address", ""};
}
Result mtu(const Config& c) {
  if (c.mtu >= 0 && c.mtu <= 65535) return std::nullopt;
  return Finding{"invalid default MTU: " + std::to_string(c.mtu), "0 to 65535", ""};
}
Result firewall_backend(const Config& c) {
  if (c.firewall_backend.empty()) return std::nullopt;
  return one_of(c.firewall_backend, {"nftables", "iptables"},
                R"(invalid firewall-backend: allowed values are "iptables" and "nftables")");
}
Result firewall_compat(const Config& c) {
  return one_of(c.firewall_compat, {"detect", "insert", "none"}, "invalid firewall-compat: " + quote(c.firewall_compat));
}
Result bridge_accept_fwmark(const Config& c) {
  if (parse_fwmark(c.bridge_accept_fwmark)) return std::nullopt;
  return Finding{"invalid firewall mark " + quote(c.bridge_accept_fwmark), "mark or mark/mask, such as 0x1/0x3", ""};
}
Result metrics_addr(const Config& c) {
  if (c.metrics_addr.empty()) return std::nullopt;
  auto colon = c.metrics_addr.rfind(':');
  auto port = colon == std::string::npos ? std::nullopt : parse_int(c.metrics_addr.substr(colon + 1));
  if (port && *port >= 0 && *port <= 65535) return std::nullopt;
  return Finding{"invalid metrics address " + quote(c.metrics_addr), "host:port", ""};
}
Result min_api_version(const Config& c) {
  auto [major, minor] = split_once(c.min_api_version, '.');
  auto number = parse_int(minor);
  if (major == "1" && number && *number >= 24 && *number <= 56) return std::nullopt;
  return Finding{"invalid minimum API version: " + quote(c.min_api_version), "1.24 to 1.56", ""};
}

std::vector<Clash> clashes(const Config& c) {
  std::vector<Clash> found;
  if (!c.bridge.empty() && !c.bip.empty())
    found.push_back({"bip", "You specified -b & --bip, mutually exclusive options. Please specify only one"});
  if (!c.iptables && !c.icc) {
    found.push_back({"icc",
                     "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set "
                     "--icc or --iptables to true"});
  }
  return found;
}

}  // namespace gantry::config::check

namespace gantry::config {

std::optional<std::pair<std::uint32_t, std::uint32_t>> parse_fwmark(const std::string& text) {
  if (text.empty()) return std::pair{0u, 0u};
  auto number = [](std::string_view part) -> std::optional<std::uint32_t> {
    int base = 10;
    if (part.starts_with("0x") || part.starts_with("0X")) base = 16;
    else if (part.size() > 1 && part[0] == '0') base = 8;
    if (base == 16) part.remove_prefix(2);
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value, base);
    if (part.empty() || error != std::errc() || end != part.data() + part.size()) return std::nullopt;
    return value;
  };
  const auto [mark_text, mask_text] = split_once(text, '/');
  const auto mark = number(mark_text);
  const auto mask = text.find('/') == std::string::npos ? std::optional(0xffffffffu) : number(mask_text);
  if (!mark || !mask || *mask == 0) return std::nullopt;
  return std::pair{*mark, *mask};
}

}  // namespace gantry::config
