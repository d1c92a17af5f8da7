#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "network/types.hpp"

/// Which addresses are free. Pure logic: nothing here is stored; it is rebuilt from the rows at start.
namespace gantry::network {

/// The addresses of one subnet. The lowest free one goes first, so an address is given again soon after it was freed.
class AddressRange {
 public:
  AddressRange() = default;
  /// `range`: the part that addresses are chosen from; empty: all of `subnet`.
  AddressRange(Cidr subnet, Cidr range);

  const Cidr& subnet() const noexcept { return subnet_; }
  /// The lowest that is free, or nothing.
  std::optional<IpAddress> try_take_any();
  /// Throws internal "no available IPv4 addresses on this network's address pools: <name> (<id>)".
  IpAddress take_any(const std::string& network_name, const std::string& network_id);
  /// Throws invalid_argument if it is outside, forbidden "Address already in use" if it is taken.
  void take(const IpAddress& address);
  /// True if it was free.
  bool reserve(const IpAddress& address);
  void release(const IpAddress& address);
  bool is_taken(const IpAddress& address) const;
  std::size_t taken() const noexcept { return taken_.size(); }

 private:
  Cidr subnet_;
  Cidr range_;
  std::set<Wide> taken_;  // distances from the subnet's first address; network and broadcast addresses included
};

/// Finds subnets that nobody uses.
class SubnetPlan {
 public:
  explicit SubnetPlan(std::vector<AddressPool> pools);

  const std::vector<AddressPool>& pools() const noexcept { return pools_; }
  /// `used`: what our networks have. `avoid`: what the host's routes and name servers occupy.
  /// `size`: a wanted prefix length, or 0 for each pool's own. nullopt: nothing is left.
  std::optional<Cidr> find(Family family, const std::vector<Cidr>& used, const std::vector<Cidr>& avoid,
                           unsigned size = 0) const;

 private:
  std::vector<AddressPool> pools_;
};

/// Checks what a client says about a network's addresses, as Docker does. Throws one invalid_argument that joins all
/// findings ("invalid network config:\n* …").
void validate_ipam(const std::vector<IpamConfig>& configs, bool enable_ipv6);

}  // namespace gantry::network
