#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "async/task.hpp"
#include "network/types.hpp"

namespace gantry::async {
struct Lanes;
}
namespace gantry::db {
class Db;
}

namespace gantry::network {

/// The service that owns networks, addresses, published ports, network namespaces and the firewall.
///
/// Rows are committed before anything is made in the kernel, and removed after it is gone, so a crash at any
/// instruction leaves only things that recover() finishes or sweeps. Reads answer from memory.
/// Requires  the event-loop thread for every member.
class Networks {
 public:
  Networks(Options options, db::Db& db, async::Lanes& lanes, boost::asio::any_io_executor loop,
           NetworkEventHook on_event = {});
  ~Networks();
  Networks(const Networks&) = delete;
  Networks& operator=(const Networks&) = delete;

  /// Brings memory and kernel in line with the rows: makes the predefined networks, bridges, firewall tables and their
  /// elements; removes what belongs to containers that are not in `running`, and what has our names but no row.
  /// Containers in `running` keep everything. Idempotent. Afterwards the watch for foreign changes is on.
  Task<RecoverReport> recover(std::set<std::string> running);
  /// Ends the watch. What containers use stays as it is.
  Task<void> stop();

  /// By full id, else full name, else unique id prefix. Throws not_found or invalid_argument with Docker's texts.
  NetworkInfo get(const std::string& name_or_id) const;
  std::optional<NetworkInfo> find(const std::string& name_or_id) const;
  std::vector<NetworkInfo> list() const;

  struct Created {
    std::string id;
    std::string warning;
  };
  Task<Created> create_network(NetworkSpec spec);
  /// Throws forbidden for predefined networks and those with endpoints.
  Task<void> remove_network(std::string name_or_id);

  /// The checks of a container's settings that need no running container. Throws invalid_argument; an unknown network
  /// is no error here (Docker reports it at start).
  void validate(const AttachRequest& request) const;

  /// Gives a container that is about to start its namespace, addresses, ports and files, all or nothing.
  /// Durable: the endpoints. Throws not_found for an unknown network, conflict for a donor without a network,
  /// internal (prefixed "failed to set up container networking: ") for the rest. Not cancelled half-way.
  Task<AttachResult> attach(AttachRequest request);
  /// Takes it all back once the container has ended. Idempotent; unknown ids are fine.
  Task<void> detach(std::string container_id);

  /// Adds a running container to one more network. Published ports follow the container's gateway network.
  Task<Endpoint> connect(std::string network, AttachRequest container, EndpointSettings settings);
  /// Takes a running container out of a network. Throws if it is not in it, unless `force`.
  Task<void> disconnect(std::string network, std::string container_id_or_name, bool force);

  /// The others find a running container under its new name, and not under the old one. Fine if it has no network.
  Task<void> rename(std::string container_id, std::string name);

  /// The links of a running container in the default network lead to these addresses from now on. `directory`: where
  /// its files are. Fine if nothing has changed or the container has no such network.
  Task<void> relink(std::string container_id, sys::Path directory, std::vector<HostsLink> links);

  /// The network of a running container, or nullptr. Valid until the next co_await.
  const Attachment* find_attachment(const std::string& container_id) const;
  /// "nftables": what /info shows as the firewall's driver, and details about it.
  std::vector<std::pair<std::string, std::string>> firewall_details() const;
  /// What an administrator should know: other programs' rules and programs in the way. For `info`.
  std::vector<std::string> warnings() const;
  /// How many foreign changes were put right since the daemon started.
  std::uint64_t repairs() const;
  std::vector<AddressPool> address_pools() const;

  /// Looks for foreign changes now and puts them right; says what it repaired. For tests and the doctor.
  Task<std::vector<std::string>> heal();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 172.17.0.0/16 for the default bridge, then /22 and /24 subnets: more than a thousand networks.
std::vector<AddressPool> default_address_pools();

}  // namespace gantry::network
