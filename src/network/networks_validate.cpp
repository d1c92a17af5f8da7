#include <fmt/format.h>

#include "base/text.hpp"
#include "network/network_options.hpp"
#include "network/networks_state.hpp"

namespace gantry::network {
namespace {

void check_address(const Net* net, bool user_defined, const std::string& text, Family family,
                   std::vector<std::string>& findings) {
  if (text.empty()) return;
  const auto ip = IpAddress::find(text);
  if (!ip || ip->family() != family || ip->is_any()) {
    findings.push_back(fmt::format("invalid {} address: {}", family == Family::v4 ? "IPv4" : "IPv6", text));
    return;
  }
  if (user_defined && net != nullptr && net->range_of(*ip) == nullptr)
    findings.push_back(fmt::format("no configured subnet contains IP address {}", text));
}

}  // namespace

void Networks::State::check_endpoint(const std::string& known, const EndpointSettings& settings) {
  std::vector<std::string> findings;
  const Net* net = find_net(known);
  const bool user_defined = net == nullptr || !net->row.predefined;
  if (!user_defined && !(settings.ipv4_address.empty() && settings.ipv6_address.empty()))
    findings.emplace_back("user-specified IP address is supported on user-defined networks only");
  if (!user_defined && !settings.aliases.empty())
    findings.emplace_back("network-scoped aliases are only supported for user-defined networks");
  check_address(net, user_defined, settings.ipv4_address, Family::v4, findings);
  check_address(net, user_defined, settings.ipv6_address, Family::v6, findings);
  for (const auto& text : settings.link_local_ips)
    if (!IpAddress::find(text)) findings.push_back(fmt::format("invalid link-local IP address: {}", text));
  if (!settings.mac_address.empty() && !MacAddress::find(settings.mac_address))
    findings.push_back(fmt::format("invalid MAC address {}", settings.mac_address));
  for (auto& finding : endpoint_option_findings(settings)) findings.push_back(std::move(finding));
  if (!findings.empty())
    throw Error(Errc::invalid_argument, fmt::format("invalid config for network {}: invalid endpoint settings:\n{}",
                                                    known, join_findings(findings)));
}

void Networks::validate(const AttachRequest& request) const {
  for (const auto& [name, settings] : request.networks)
    state_->check_endpoint(name.empty() || name == "default" ? "bridge" : name, settings);
  plan_ports(request.port_bindings, request.exposed_ports, request.publish_all, state_->options.default_bind_ip, true);
}

}  // namespace gantry::network
