#include "engine/network_view.hpp"

namespace gantry::engine {
namespace {

/// What the client decides; a request may also carry addresses, which mean nothing.
model::EndpointSettings configured(const model::EndpointSettings& from) {
  model::EndpointSettings to;
  to.IPAMConfig = from.IPAMConfig;
  to.Links = from.Links;
  to.Aliases = from.Aliases;
  to.MacAddress = from.MacAddress;
  to.DriverOpts = from.DriverOpts;
  to.GwPriority = from.GwPriority;
  return to;
}

void put_live(model::EndpointSettings& to, const network::Endpoint& from) {
  to.NetworkID = from.network_id;
  to.EndpointID = from.id;
  to.Gateway = from.gateway;
  to.IPAddress = from.ip_address;
  to.IPPrefixLen = from.ip_prefix_length;
  to.IPv6Gateway = from.ipv6_gateway;
  to.GlobalIPv6Address = from.ipv6_address;
  to.GlobalIPv6PrefixLen = from.ipv6_prefix_length;
  to.MacAddress = from.mac_address;
  if (!from.dns_names.empty()) to.DNSNames = from.dns_names;
}

}  // namespace

std::map<std::string, model::EndpointSettings> NetworkView::endpoints(const Container& container) {
  std::map<std::string, model::EndpointSettings> shown;
  const std::string mode = container.network_mode();
  if (mode.starts_with("container:")) return shown;
  for (const auto& [key, settings] : container.networks) {
    const Identity& network = identify(key);
    model::EndpointSettings& entry = shown[network.name] = configured(settings);
    entry.NetworkID = network.id;
  }
  const Identity& own = identify(mode == "default" ? "bridge" : mode);
  const network::Attachment* live = attachment(container);
  if (!shown.contains(own.name) && !container.left_own_network) shown[own.name].NetworkID = own.id;
  if (live != nullptr)
    for (const network::Endpoint& endpoint : live->endpoints) put_live(shown[endpoint.network_name], endpoint);
  return shown;
}

model::PortMap NetworkView::ports(const Container& container) const {
  model::PortMap ports;
  const network::Attachment* live = attachment(container);
  if (live == nullptr) return ports;
  for (const auto& [port, bindings] : live->ports) {
    auto& entry = ports[port];
    if (bindings.empty()) continue;
    entry.emplace();
    for (const network::PortBinding& binding : bindings)
      entry->push_back(model::PortBinding{binding.host_ip, binding.host_port});
  }
  return ports;
}

const NetworkView::Identity& NetworkView::identify(const std::string& name_or_id) {
  const auto [place, added] = known_.try_emplace(name_or_id);
  if (added) {
    if (const auto found = networks_.find(name_or_id)) place->second = Identity{found->id, found->name};
    else place->second = Identity{"", name_or_id};
  }
  return place->second;
}

}  // namespace gantry::engine
