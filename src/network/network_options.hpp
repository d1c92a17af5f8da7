#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "network/types.hpp"

/// What clients may say about networks and endpoints, checked. Pure logic; texts are Docker's.
namespace gantry::network {

inline constexpr const char* kBridgeName = "com.docker.network.bridge.name";
inline constexpr const char* kInterfaceOption = "com.docker.network.endpoint.ifname";
inline constexpr const char* kSysctlsOption = "com.docker.network.endpoint.sysctls";

/// Throws invalid_argument for the first option of a bridge network that cannot be understood.
void check_bridge_options(const std::map<std::string, std::string>& options, bool internal);

/// A macvlan or ipvlan network's options.
struct VlanOptions {
  std::string parent;  // empty: an interface of our own that leads nowhere
  std::string mode;    // macvlan: bridge, private, vepa, passthru; ipvlan: l2, l3, l3s
  std::string flag;    // ipvlan: bridge, private, vepa
};
/// Throws internal, as Docker does.
VlanOptions parse_vlan_options(const std::string& driver, const std::map<std::string, std::string>& options);
/// "eth0.10" is VLAN 10 on eth0. Throws internal with Docker's texts.
std::pair<std::string, int> parse_vlan_interface(const std::string& name);

/// The network's settings come from the specification, then from the daemon's defaults for its driver.
/// `enable_ipv4` and `enable_ipv6` may also stand among the options; fields win, and the option is then dropped.
void apply_default_options(NetworkSpec& spec,
                           const std::map<std::string, std::map<std::string, std::string>>& defaults);

/// "net.ipv4.conf.IFNAME.log_martians=1,…" as paths below /proc/sys and values, for this interface.
std::vector<std::pair<std::string, std::string>> endpoint_sysctls(const std::string& text,
                                                                  const std::string& interface);
/// What is wrong with an endpoint's driver options.
std::vector<std::string> endpoint_option_findings(const EndpointSettings& settings);

/// One finding stands for itself; several become a list.
std::string join_findings(const std::vector<std::string>& findings);

}  // namespace gantry::network
