#pragma once

#include <map>
#include <string>
#include <vector>

#include "async/operation.hpp"
#include "async/task.hpp"
#include "base/filters.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/services.hpp"
#include "model/network.hpp"

namespace gantry::engine {

/// Has the container's shim answer at 127.0.0.11 if one of its networks has names and it does not do so yet.
Task<void> serve_names(Services& services, ContainerPtr container);

/// Published ports of a running container lead to where its networks have them now, also over loopback.
Task<void> retarget_ports(Services& services, ContainerPtr container);

/// `docker network connect` and `disconnect`: a container's row and, while it runs, its network. All or nothing.
class NetworkLinks {
 public:
  NetworkLinks(Services& services, ContainerStore& store) : services_(services), store_(store) {}

  /// Works on stopped containers too; those join at their next start.
  /// Throws not_found (network, container), invalid_argument (modes that cannot be mixed), forbidden (it is in it).
  Task<void> connect(std::string network, std::string container, model::EndpointSettings settings);
  /// `force` also takes out what is left of a container that is not known any more.
  Task<void> disconnect(std::string network, std::string container, bool force);
  /// Removes the networks that nothing is attached to and that pass `label`, `label!` and `until`; returns their names.
  /// Throws conflict while another prune runs.
  Task<std::vector<std::string>> prune(Filters filters);

 private:
  Task<void> connect_steps(async::OperationPtr op, ContainerPtr container, network::NetworkInfo network,
                           model::EndpointSettings settings);
  Task<void> put_back(ContainerPtr container, std::map<std::string, model::EndpointSettings> networks);
  bool is_own(const Container& container, const network::NetworkInfo& network) const;
  std::string find_entry(const Container& container, const network::NetworkInfo& network) const;

  Services& services_;
  ContainerStore& store_;
  bool pruning_ = false;
};

}  // namespace gantry::engine
