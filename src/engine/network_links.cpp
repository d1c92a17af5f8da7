#include "engine/network_links.hpp"

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "engine/messages.hpp"
#include "engine/settings.hpp"
#include "image/prune_filter.hpp"

namespace gantry::engine {
namespace {

void require_own_network(const Container& container, const network::NetworkInfo& network) {
  const std::string mode = container.network_mode();
  if (mode.starts_with("container:"))
    throw Error(Errc::invalid_argument,
                "container sharing network namespace with another container or host cannot be connected to any other "
                "network");
  if (mode == "host")
    throw Error(Errc::invalid_argument,
                "container cannot be disconnected from host network or connected to host network");
  if (network.driver == "host")
    throw Error(Errc::invalid_argument,
                "cannot connect container to host network - container must be created in host network mode");
  if (mode == "none" || network.driver == "null")
    throw Error(Errc::invalid_argument,
                "container cannot be connected to multiple networks with one of the networks in private (none) mode");
}

void require_alive(const Container& container, const std::string& reference) {
  if (container.removed) throw no_such_container(reference);
  if (container.removing || container.state.dead)
    throw Error(Errc::conflict,
                fmt::format("container {} is marked for removal and cannot be connected or disconnected to the network",
                            container.id.str()));
}

}  // namespace

Task<void> NetworkLinks::connect(std::string network, std::string reference, model::EndpointSettings settings) {
  const network::NetworkInfo info = services_.networks.get(network);
  ContainerPtr container = store_.get(reference);
  require_own_network(*container, info);
  auto lock = co_await container->mutex.lock("network connect");
  require_alive(*container, reference);
  const std::string entry = find_entry(*container, info);
  if (container->state.running && !entry.empty())
    throw Error(Errc::forbidden,
                fmt::format("endpoint with name {} already exists in network {}", container->name, info.name));
  auto op = services_.operations.begin("network.connect", container->name);
  co_await async::shielded(op->guard(connect_steps(op, container, info, std::move(settings))));
}

Task<void> NetworkLinks::connect_steps(async::OperationPtr op, ContainerPtr container, network::NetworkInfo network,
                                       model::EndpointSettings settings) {
  op->step("writing the container's row");
  op->undo([this, container, before = container->networks, left = container->left_own_network] {
    container->left_own_network = left;
    return put_back(container, before);
  });
  const network::EndpointSettings wanted = to_network_settings(settings);
  const std::string entry = find_entry(*container, network);
  container->networks[entry.empty() ? network.name : entry] = std::move(settings);
  if (is_own(*container, network)) container->left_own_network = false;
  network::AttachRequest request = make_attach_request(*container, services_.paths.container(container->id.str()));
  services_.networks.validate(request);
  co_await store_.save(container);
  FAILPOINT("network_connect.after_row");
  if (!container->state.running || container->state.restarting) co_return;
  op->step("connecting the container");
  (void)co_await services_.networks.connect(network.id, std::move(request), wanted);
  op->undo([this, container, id = network.id] { return services_.networks.disconnect(id, container->id.str(), true); });
  FAILPOINT("network_connect.after_kernel");
  co_await serve_names(services_, container);
  co_await retarget_ports(services_, container);
}

Task<void> retarget_ports(Services& services, ContainerPtr container) {
  const network::Attachment* attachment = services.networks.find_attachment(container->id.str());
  if (attachment == nullptr || attachment->port_targets.empty() || !container->shim) co_return;
  runtime::ShimClient shim = container->live_shim();
  const std::vector<std::string> targets = attachment->port_targets;
  try {
    co_await shim.retarget(targets);
  } catch (const Error& e) {
    if (e.code() != Errc::not_implemented) throw;
    log::debug("container {}: its shim is of a version whose ports keep their address", container->name);
  }
}

Task<void> serve_names(Services& services, ContainerPtr container) {
  const network::Attachment* attachment = services.networks.find_attachment(container->id.str());
  if (attachment == nullptr || attachment->names_path.empty() || !container->shim) co_return;
  const std::string netns = attachment->netns_path, names = attachment->names_path;
  runtime::ShimClient shim = container->live_shim();
  try {
    co_await shim.serve_names(netns, names);
  } catch (const Error& e) {
    if (e.code() != Errc::not_implemented) throw;
    log::debug("container {}: its shim is of a version that answers no names", container->name);
  }
}

Task<void> NetworkLinks::put_back(ContainerPtr container, std::map<std::string, model::EndpointSettings> networks) {
  container->networks = std::move(networks);
  co_await store_.save(container);
}

Task<void> NetworkLinks::disconnect(std::string network, std::string reference, bool force) {
  const network::NetworkInfo info = services_.networks.get(network);
  ContainerPtr container = force ? store_.find(reference) : store_.get(reference);
  if (!container) {
    co_await async::shielded(services_.networks.disconnect(info.id, reference, true));
    co_return;
  }
  if (container->network_mode() == "host")
    throw Error(Errc::invalid_argument,
                "container cannot be disconnected from host network or connected to host network");
  auto lock = co_await container->mutex.lock("network disconnect");
  require_alive(*container, reference);
  const std::string entry = find_entry(*container, info);
  const bool own = is_own(*container, info);
  const bool in_it = !entry.empty() || (own && !container->left_own_network);
  const bool connected = container->state.running && !container->state.restarting;
  if (connected) {
    co_await async::shielded(services_.networks.disconnect(info.id, container->id.str(), force));
    co_await async::shielded(retarget_ports(services_, container));
  } else if (!in_it && !force) {
    throw Error(Errc::internal,
                fmt::format("container {} is not connected to network {}", container->id.str(), info.name));
  }
  FAILPOINT("network_disconnect.after_kernel");
  container->networks.erase(entry);
  if (own) container->left_own_network = true;
  co_await async::shielded(store_.save(container));
  if (connected || !in_it) co_return;
  services_.events.publish("network", "disconnect", info.id,
                           {{"container", container->id.str()}, {"name", info.name}, {"type", info.driver}});
}

Task<std::vector<std::string>> NetworkLinks::prune(Filters filters) {
  if (pruning_) throw Error(Errc::conflict, "a prune operation is already running");
  struct Running {
    explicit Running(bool& is) : flag(is) { flag = true; }
    ~Running() { flag = false; }
    bool& flag;
  } running(pruning_);
  const std::optional<Timestamp> until = image::read_until(filters);
  std::vector<std::string> removed;
  for (const network::NetworkInfo& network : services_.networks.list()) {
    if (network.predefined || !network.members.empty() || (until && network.created > *until)) continue;
    if (!filters.labels_match("label", network.labels)) continue;
    if (filters.has("label!") && filters.labels_match("label!", network.labels)) continue;
    std::string failure;
    try {
      co_await async::shielded(services_.networks.remove_network(network.id));
      removed.push_back(network.name);
    } catch (const Error& e) {
      failure = e.message();  // a container has joined it meanwhile
    }
    if (!failure.empty()) log::debug("network {} is not pruned: {}", network.name, failure);
  }
  services_.events.publish("network", "prune", "", {{"reclaimed", "0"}});
  co_return removed;
}

/// Whether it is the network of the container's NetworkMode.
bool NetworkLinks::is_own(const Container& container, const network::NetworkInfo& network) const {
  const std::string mode = container.network_mode();
  const auto own = services_.networks.find(mode == "default" ? "bridge" : mode);
  return own && own->id == network.id;
}

/// The key under which the container has the network, which may be a name or an id; empty: it is not in it.
std::string NetworkLinks::find_entry(const Container& container, const network::NetworkInfo& network) const {
  for (const auto& [key, unused] : container.networks) {
    if (key == network.name || key == network.id) return key;
    const auto found = services_.networks.find(key);
    if (found && found->id == network.id) return key;
  }
  return {};
}

}  // namespace gantry::engine
