#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/error.hpp"

/// Texts that clients match. Docker's wording; network.md and engine-api.md say where each is seen.
namespace gantry::network {

inline Error network_not_found(std::string_view name) {
  return {Errc::not_found, fmt::format("network {} not found", name)};
}
inline Error network_ambiguous(std::string_view name, std::size_t matches, std::string_view by) {
  return {Errc::invalid_argument,
          fmt::format("{} matches found based on {}: network {} is ambiguous", matches, by, name)};
}
inline Error network_exists(std::string_view name) {
  return {Errc::conflict, fmt::format("network with name {} already exists", name)};
}
inline Error network_predefined(std::string_view name) {
  return {Errc::forbidden, fmt::format("{} is a pre-defined network and cannot be removed", name)};
}
inline Error predefined_not_permitted(std::string_view name) {
  return {Errc::forbidden, fmt::format("operation is not permitted on predefined {} network ", name)};
}
inline Error network_in_use(std::string_view name, std::string_view endpoints) {
  return {Errc::forbidden,
          fmt::format("error while removing network: network {} has active endpoints ({})", name, endpoints)};
}
inline Error pools_exhausted(std::string_view holders) {
  return {Errc::not_found, fmt::format("all predefined address pools have been fully subnetted{}", holders)};
}
inline Error pool_overlaps() {
  return {Errc::forbidden, "invalid pool request: Pool overlaps with other one on this address space"};
}
inline Error not_connected(std::string_view container, std::string_view network) {
  return {Errc::internal, fmt::format("container {} is not connected to network {}", container, network)};
}
inline Error already_in_network(std::string_view endpoint, std::string_view network) {
  return {Errc::forbidden, fmt::format("endpoint with name {} already exists in network {}", endpoint, network)};
}
inline Error donor_not_running(std::string_view donor) {
  return {Errc::conflict,
          fmt::format("cannot join network namespace of a non running container: container {} is not running", donor)};
}
inline Error host_mode_is_fixed() {
  return {Errc::invalid_argument,
          "cannot connect container to host network - container must be created in host network mode"};
}
inline Error host_mode_not_disconnected() {
  return {Errc::conflict, "container cannot be disconnected from host network or connected to host network"};
}
inline Error shares_namespace() {
  return {
      Errc::conflict,
      "container sharing network namespace with another container or host cannot be connected to any other network"};
}
inline Error none_is_alone() {
  return {Errc::conflict,
          "container cannot be connected to multiple networks with one of the networks in private (none) mode"};
}
inline Error config_only_network() { return {Errc::forbidden, "cannot create endpoint on configuration-only network"}; }
inline constexpr std::string_view kSetupFailed = "failed to set up container networking";
inline std::string external_connectivity(std::string_view name, std::string_view endpoint_id) {
  return fmt::format("driver failed programming external connectivity on endpoint {} ({})", name, endpoint_id);
}
inline constexpr std::string_view kPortsDiscarded = "Published ports are discarded when using host network mode";

}  // namespace gantry::network
