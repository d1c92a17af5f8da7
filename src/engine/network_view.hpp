#pragma once

#include <map>
#include <string>

#include "engine/container.hpp"
#include "model/network.hpp"
#include "network/networks.hpp"

namespace gantry::engine {

/// The networks of containers as clients see them: what was asked for and, while a container runs, what it got.
/// Lives for one request (no co_await): it remembers which networks it has looked up.
class NetworkView {
 public:
  explicit NetworkView(const network::Networks& networks) : networks_(networks) {}

  /// Key: the network's name. Empty for containers that share another one's network.
  std::map<std::string, model::EndpointSettings> endpoints(const Container& container);
  /// Published and exposed ports; empty unless it runs.
  model::PortMap ports(const Container& container) const;
  const network::Attachment* attachment(const Container& container) const {
    return networks_.find_attachment(container.id.str());
  }

 private:
  struct Identity {
    std::string id;  // empty: there is no such network (any more)
    std::string name;
  };
  const Identity& identify(const std::string& name_or_id);

  const network::Networks& networks_;
  std::map<std::string, Identity> known_;
};

}  // namespace gantry::engine
