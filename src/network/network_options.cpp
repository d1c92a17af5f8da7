#include "network/network_options.hpp"

#include <algorithm>
#include <set>

#include <net/if.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::network {
namespace {

constexpr std::string_view kBridge = "com.docker.network.bridge.";
constexpr const char* kEnableIpv4 = "com.docker.network.enable_ipv4";
constexpr const char* kEnableIpv6 = "com.docker.network.enable_ipv6";

Error bad_value(const std::string& key, const std::string& value, const std::string& why) {
  return {Errc::invalid_argument, fmt::format("failed to parse {} value: {} ({})", key, value, why)};
}

bool parse_bool(const std::string& key, const std::string& value) {
  static const std::set<std::string> kYes{"1", "t", "T", "TRUE", "true", "True"};
  static const std::set<std::string> kNo{"0", "f", "F", "FALSE", "false", "False"};
  if (kYes.count(value) != 0) return true;
  if (kNo.count(value) == 0)
    throw bad_value(key, value, fmt::format("strconv.ParseBool: parsing {}: invalid syntax", quote(value)));
  return false;
}

std::int64_t parse_number(const std::string& key, const std::string& value) {
  const auto number = parse_int(value);
  if (!number) throw bad_value(key, value, fmt::format("strconv.Atoi: parsing {}: invalid syntax", quote(value)));
  return *number;
}

void check_ip(const std::string& key, const std::string& value) {
  if (!IpAddress::find(value)) throw bad_value(key, value, "nil ip");
}

bool is_interface_name(const std::string& name, std::size_t room = 0) {
  return !name.empty() && name.size() + room < IFNAMSIZ && name != "." && name != ".." &&
         name.find_first_of("/ \t\n\v\f\r:%") == std::string::npos;
}

void check_gateway_mode(const std::string& value, bool internal) {
  static const std::set<std::string> kModes{"nat", "nat-unprotected", "routed", "isolated"};
  if (kModes.count(value) == 0) throw Error(Errc::invalid_argument, fmt::format("unknown gateway mode {}", value));
  if (value == "isolated" && !internal)
    throw Error(Errc::invalid_argument, "gateway mode 'isolated' can only be used for an internal network");
}

void check_range(const std::string& key, const std::string& value, std::int64_t low, std::int64_t high) {
  const std::int64_t number = parse_number(key, value);
  if (number < low || number > high)
    throw Error(Errc::invalid_argument, fmt::format("{} must be in the range {} to {}", key, low, high));
}

}  // namespace

void check_bridge_options(const std::map<std::string, std::string>& options, bool internal) {
  for (const auto& [key, value] : options) {
    const std::string_view own = key.starts_with(kBridge) ? std::string_view(key).substr(kBridge.size()) : "";
    if (own == "enable_icc" || own == "enable_ip_masquerade" || own == "inhibit_ipv4" || own == "default_bridge")
      parse_bool(key, value);
    else if (own == "gateway_mode_ipv4" || own == "gateway_mode_ipv6") check_gateway_mode(value, internal);
    else if (own == "host_binding_ipv4") check_ip(key, value);
    else if (key == kBridgeName && !is_interface_name(value))
      throw Error(Errc::invalid_argument, fmt::format("invalid bridge name: {}", quote(value)));
    else if (own == "trusted_host_interfaces") {
      for (const auto& name : split(value, ':'))
        if (!is_interface_name(name)) throw bad_value(key, value, "not a list of interfaces, separated by colons");
    } else if (key == "com.docker.network.host_ipv4" || key == "com.docker.network.host_ipv6") check_ip(key, value);
    else if (key == "com.docker.network.driver.mtu") {
      if (const std::int64_t mtu = parse_number(key, value); mtu < 0 || mtu > 65535)
        throw Error(Errc::invalid_argument, fmt::format("invalid MTU number: {}", mtu));
    } else if (key == "com.docker.network.container_iface_prefix" && !is_interface_name(value, 4))
      throw Error(Errc::invalid_argument, fmt::format("invalid interface prefix: {}", quote(value)));
    else if (key == "com.docker.network.advertise_addr_nmsgs") check_range(key, value, 0, 3);
    else if (key == "com.docker.network.advertise_addr_ms") check_range(key, value, 100, 2000);
  }
}

VlanOptions parse_vlan_options(const std::string& driver, const std::map<std::string, std::string>& options) {
  const bool mac = driver == "macvlan";
  VlanOptions out{"", mac ? "bridge" : "l2", "bridge"};
  auto take = [&](const char* key, std::string& into) {
    if (auto it = options.find(key); it != options.end() && !it->second.empty()) into = it->second;
  };
  take("parent", out.parent);
  take(mac ? "macvlan_mode" : "ipvlan_mode", out.mode);
  if (!mac) take("ipvlan_flag", out.flag);
  static const std::set<std::string> kMacModes{"bridge", "private", "vepa", "passthru"};
  static const std::set<std::string> kIpModes{"l2", "l3", "l3s"}, kFlags{"bridge", "private", "vepa"};
  if ((mac ? kMacModes : kIpModes).count(out.mode) == 0)
    throw Error(Errc::internal, fmt::format("requested {} mode '{}' is not valid, '{}' mode is the {} driver default",
                                            driver, out.mode, mac ? "bridge" : "l2", driver));
  if (kFlags.count(out.flag) == 0)
    throw Error(
        Errc::internal,
        fmt::format("requested ipvlan flag '{}' is not valid, 'bridge' is the ipvlan driver default", out.flag));
  if (out.parent == "lo")
    throw Error(Errc::internal, fmt::format("loopback interface is not a valid {} parent link", driver));
  if (!out.parent.empty() && !is_interface_name(out.parent))
    throw Error(Errc::internal, fmt::format("{} is not the name of an interface", quote(out.parent)));
  return out;
}

std::pair<std::string, int> parse_vlan_interface(const std::string& name) {
  const auto parts = split(name, '.');
  if (parts.size() == 1)
    throw Error(Errc::internal, fmt::format("invalid subinterface vlan name {}, example formatting is eth0.10", name));
  if (parts.size() != 2)
    throw Error(
        Errc::internal,
        fmt::format("required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {}",
                    name));
  const auto id = parse_int(parts[1]);
  if (!id)
    throw Error(Errc::internal,
                fmt::format("unable to parse a valid vlan id from: {} (ex. eth0.10 for vlan 10)", parts[1]));
  if (*id < 1 || *id > 4094)
    throw Error(Errc::internal, fmt::format("vlan id must be between 1-4094, received: {}", *id));
  return {std::string(parts[0]), static_cast<int>(*id)};
}

void apply_default_options(NetworkSpec& spec,
                           const std::map<std::string, std::map<std::string, std::string>>& defaults) {
  if (auto it = defaults.find(spec.driver); it != defaults.end() && spec.config_from.empty())
    spec.options.insert(it->second.begin(), it->second.end());
  for (const auto& [key, field] : {std::pair(kEnableIpv4, &spec.enable_ipv4), {kEnableIpv6, &spec.enable_ipv6}}) {
    auto it = spec.options.find(key);
    if (it == spec.options.end()) continue;
    if (*field) spec.options.erase(it);
    else *field = parse_bool(key, it->second);
  }
}

std::vector<std::pair<std::string, std::string>> endpoint_sysctls(const std::string& text,
                                                                  const std::string& interface) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& entry : split(text, ',')) {
    auto [name, value] = split_once(entry, '=');
    auto parts = split(name, '.');
    if (parts.size() != 5) continue;  // refused by endpoint_option_findings()
    parts[3] = interface;
    out.emplace_back(join(parts, "/"), std::string(value));
  }
  return out;
}

std::vector<std::string> endpoint_option_findings(const EndpointSettings& settings) {
  std::vector<std::string> findings;
  if (auto it = settings.driver_opts.find(kInterfaceOption);
      it != settings.driver_opts.end() && !it->second.empty() && !is_interface_name(it->second))
    findings.push_back(fmt::format("invalid interface name: {}", quote(it->second)));
  const auto sysctls = settings.driver_opts.find(kSysctlsOption);
  if (sysctls == settings.driver_opts.end()) return findings;
  for (const auto& entry : split(sysctls->second, ',')) {
    const auto [name, value] = split_once(entry, '=');
    const auto parts = split(name, '.');
    const bool well_formed = parts.size() == 5 && parts[0] == "net" &&
                             (parts[1] == "ipv4" || parts[1] == "ipv6" || parts[1] == "mpls") &&
                             (parts[3] == "IFNAME" || parts[3] == "ifname") && name.size() < entry.size() &&
                             std::all_of(
                                 parts.begin(), parts.end(),
                                 [](const auto& part) {
                                   return !part.empty() && std::all_of(part.begin(), part.end(), [](unsigned char c) {
                                     return std::isalnum(c) != 0 || c == '_' || c == '-';
                                   });
                                 });
    if (!well_formed)
      findings.push_back(
          fmt::format("unrecognised network interface sysctl '{}'; represent 'net.X.Y.ethN.Z=V' as "
                      "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
                      entry));
  }
  return findings;
}

std::string join_findings(const std::vector<std::string>& findings) {
  return findings.size() == 1 ? findings.front() : "* " + join(findings, "\n* ");
}

}  // namespace gantry::network
