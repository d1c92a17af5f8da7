#include "engine/legacy_links.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/settings.hpp"

namespace gantry::engine {
namespace {

constexpr std::string_view kDefaultNetwork = "bridge";

struct Link {
  std::string target;
  std::string alias;
};

/// "target:alias", "target", or as inspect shows it: "/target:/self/alias".
Link parse_link(const std::string& text) {
  const auto parts = split(text, ':');
  if (text.empty() || parts.size() > 2 || parts[0].empty())
    throw Error(Errc::invalid_argument, fmt::format("invalid format for links: {}", text));
  if (parts.size() == 1) return {parts[0], parts[0]};
  if (parts[0].front() != '/') return {parts[0], parts[1]};
  return {parts[0].substr(1), parts[1].substr(parts[1].rfind('/') + 1)};
}

bool uses_default_network(const Container& container) {
  const std::string mode = container.network_mode();
  return mode.empty() || mode == "default" || mode == kDefaultNetwork;
}

std::vector<Link> links_of(const Container& container) {
  std::vector<Link> links;
  if (!container.host.Links || !uses_default_network(container)) return links;
  for (const std::string& text : *container.host.Links) links.push_back(parse_link(text));
  return links;
}

/// The container whose network it is: links go through "container:" modes.
ContainerPtr find_target(const ContainerStore& store, const std::string& name) {
  ContainerPtr target = store.find(name);
  for (int hops = 0; target && hops < 8; ++hops) {
    const std::string donor = joined_container(target->network_mode());
    if (donor.empty()) break;
    target = store.find(donor);
  }
  if (!target)
    throw Error(Errc::invalid_argument,
                fmt::format("could not get container for {}: No such container: {}", name, name));
  return target;
}

}  // namespace

void validate_links(const ContainerStore& store, const Container& container) {
  for (const Link& link : links_of(container))
    if (find_target(store, link.target)->network_mode() == "host")
      throw Error(Errc::invalid_argument,
                  "conflicting options: host type networking can't be used with links. This would result in undefined "
                  "behavior");
}

std::vector<network::HostsLink> resolve_links(const ContainerStore& store, const network::Networks& networks,
                                              const Container& container) {
  std::vector<network::HostsLink> lines;
  for (const Link& link : links_of(container)) {
    const ContainerPtr target = find_target(store, link.target);
    if (!target->state.running || target->state.restarting)
      throw Error(Errc::conflict, fmt::format("Cannot link to a non running container: /{} AS /{}/{}", target->name,
                                              container.name, link.alias));
    const network::Attachment* attachment = networks.find_attachment(target->id.str());
    const network::Endpoint* endpoint = nullptr;
    if (attachment != nullptr)
      for (const network::Endpoint& each : attachment->endpoints)
        if (each.network_name == kDefaultNetwork) endpoint = &each;
    if (endpoint == nullptr)
      throw Error(Errc::invalid_argument,
                  fmt::format("Cannot link to /{}, as it does not belong to the default network", target->name));
    network::HostsLink line{endpoint->ip_address, {link.alias}};
    for (const std::string& name : {target->config.Hostname, target->name})
      if (!name.empty() && std::ranges::find(line.names, name) == line.names.end()) line.names.push_back(name);
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace gantry::engine
