#include "engine/legacy_links.hpp"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/log.hpp"
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

struct LinkedContainer {
  ContainerPtr target;
  std::string address;
};

/// Throws unless the link's container runs in the default network.
LinkedContainer find_running_target(const ContainerStore& store, const network::Networks& networks,
                                    const Container& container, const Link& link) {
  const ContainerPtr target = find_target(store, link.target);
  if (!target->state.running || target->state.restarting)
    throw Error(Errc::conflict, fmt::format("Cannot link to a non running container: /{} AS /{}/{}", target->name,
                                            container.name, link.alias));
  const network::Attachment* attachment = networks.find_attachment(target->id.str());
  if (attachment != nullptr)
    for (const network::Endpoint& endpoint : attachment->endpoints)
      if (endpoint.network_name == kDefaultNetwork) return {target, endpoint.ip_address};
  throw Error(Errc::invalid_argument,
              fmt::format("Cannot link to /{}, as it does not belong to the default network", target->name));
}

struct Port {
  std::int64_t number = 0;
  std::string protocol;
};

/// By number; of equal ones TCP comes first.
std::vector<Port> exposed_ports(const model::ContainerConfig& config) {
  std::vector<Port> ports;
  if (config.ExposedPorts)
    for (const auto& [text, unused] : *config.ExposedPorts) {
      const auto [number, protocol] = split_once(text, '/');
      if (const auto value = parse_int(number))
        ports.push_back({*value, protocol.empty() ? std::string("tcp") : std::string(protocol)});
    }
  std::ranges::sort(ports, {}, [](const Port& p) { return std::tuple(p.number, p.protocol != "tcp", p.protocol); });
  return ports;
}

/// Three ports or more that follow each other are told as a range too.
void add_port_variables(std::vector<std::string>& env, const std::string& alias, const std::string& address,
                        const std::vector<Port>& ports) {
  const auto url = [&](const Port& port) { return fmt::format("{}://{}:{}", port.protocol, address, port.number); };
  const auto prefix_of = [&](const Port& port) {
    return fmt::format("{}_PORT_{}_{}", alias, port.number, to_upper(port.protocol));
  };
  for (std::size_t i = 0, begin = 0; i < ports.size(); ++i) {
    const Port& port = ports[i];
    if (i == 0) env.push_back(fmt::format("{}_PORT={}", alias, url(port)));
    const std::string prefix = prefix_of(port);
    env.push_back(fmt::format("{}={}", prefix, url(port)));
    env.push_back(fmt::format("{}_ADDR={}", prefix, address));
    env.push_back(fmt::format("{}_PORT={}", prefix, port.number));
    env.push_back(fmt::format("{}_PROTO={}", prefix, port.protocol));
    const bool goes_on =
        i + 1 < ports.size() && ports[i + 1].number == port.number + 1 && ports[i + 1].protocol == port.protocol;
    if (goes_on) continue;
    if (i > begin + 1) {
      const std::string range = prefix_of(ports[begin]);
      env.push_back(fmt::format("{}_START={}", range, url(ports[begin])));
      env.push_back(fmt::format("{}_PORT_START={}", range, ports[begin].number));
      env.push_back(fmt::format("{}_END={}", range, url(port)));
      env.push_back(fmt::format("{}_PORT_END={}", range, port.number));
    }
    begin = i + 1;
  }
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
    const LinkedContainer linked = find_running_target(store, networks, container, link);
    network::HostsLink line{linked.address, {link.alias}};
    for (const std::string& name : {linked.target->config.Hostname, linked.target->name})
      if (!name.empty() && std::ranges::find(line.names, name) == line.names.end()) line.names.push_back(name);
    for (const Port& port : exposed_ports(linked.target->config))
      line.ports.push_back(fmt::format("{}/{}", port.number, port.protocol));
    lines.push_back(std::move(line));
  }
  return lines;
}

Task<void> update_links_to(Services& services, const ContainerStore& store, ContainerPtr target) {
  for (const ContainerPtr& container : store.list()) {
    if (container == target || !container->state.running || links_of(*container).empty()) continue;
    const auto links = links_of(*container);
    const bool concerned = std::ranges::any_of(links, [&](const Link& link) {
      const ContainerPtr named = store.find(link.target);
      return named == target;
    });
    if (!concerned) continue;
    try {
      co_await services.networks.relink(container->id.str(), services.paths.container(container->id.str()),
                                        resolve_links(store, services.networks, *container));
    } catch (const Error& e) {
      // Another of its targets does not run; the lines follow when that one starts.
      log::debug("links of container {} stay as they are: {}", container->name, e.log_detail());
    }
  }
}

LinkNames link_names(const ContainerStore& store) {
  LinkNames names;
  for (const ContainerPtr& container : store.list())
    for (const Link& link : links_of(*container))
      if (const ContainerPtr target = store.find(link.target))
        names[target->id.str()].push_back(container->name + "/" + link.alias);
  return names;
}

ContainerPtr take_link(const ContainerStore& store, const std::string& name) {
  const auto [parent_name, alias] = split_once(name.starts_with('/') ? std::string_view(name).substr(1) : name, '/');
  if (alias.empty()) throw Error(Errc::conflict, "Conflict, cannot remove the default link name of the container");
  const ContainerPtr parent = store.find_by_name(std::string(parent_name));
  if (!parent)
    throw Error(Errc::not_found,
                fmt::format("Cannot get parent /{} for link name /{}/{}", parent_name, parent_name, alias));
  const auto is_it = [wanted = alias](const std::string& text) { return parse_link(text).alias == wanted; };
  if (!parent->host.Links || std::erase_if(*parent->host.Links, is_it) == 0)
    throw Error(Errc::not_found, fmt::format("Cannot find link /{}/{}", parent_name, alias));
  return parent;
}

std::vector<std::string> link_environment(const ContainerStore& store, const network::Networks& networks,
                                          const Container& container) {
  std::vector<std::string> env;
  for (const Link& link : links_of(container)) {
    const LinkedContainer linked = find_running_target(store, networks, container, link);
    std::string prefix = to_upper(link.alias);
    std::ranges::replace(prefix, '-', '_');
    add_port_variables(env, prefix, linked.address, exposed_ports(linked.target->config));
    env.push_back(fmt::format("{}_NAME=/{}/{}", prefix, container.name, link.alias));
    for (const std::string& variable : linked.target->config.Env.value_or(std::vector<std::string>{})) {
      const auto [name, value] = split_once(variable, '=');
      if (variable.find('=') != std::string::npos && name != "HOME" && name != "PATH")
        env.push_back(fmt::format("{}_ENV_{}={}", prefix, name, value));
    }
  }
  return env;
}

}  // namespace gantry::engine
