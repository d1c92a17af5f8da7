#include "network/vlan.hpp"

#include <cerrno>
#include <map>

#include <linux/if_link.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "network/network_options.hpp"

namespace gantry::network {
namespace {

constexpr std::string_view kDummyPrefix = "dm-";
constexpr std::size_t kDummyDigits = 12;

void make(sys::NetlinkSocket& socket, sys::NetlinkBatch batch, const std::string& parent, const char* option) {
  sys::add_link_change(batch, {.name = parent, .up = true});
  const auto failures = socket.send(std::move(batch));
  if (failures.empty()) return;
  if (failures.front().error == EOPNOTSUPP)
    throw Error(Errc::not_implemented,
                fmt::format("interface {} cannot be made: this kernel was built without {}", parent, option));
  throw sys::NetlinkSocket::to_error(failures.front());
}

}  // namespace

std::string dummy_parent(const std::string& network_id) {
  return std::string(kDummyPrefix) + network_id.substr(0, kDummyDigits);
}

bool is_dummy_parent(const std::string& parent) {
  return parent.starts_with(kDummyPrefix) && parent.size() == kDummyPrefix.size() + kDummyDigits;
}

void require_vlan_kind(sys::NetlinkSocket& socket, const std::string& kind) {
  if (sys::knows_link_kind(socket, kind)) return;
  throw Error(Errc::not_implemented, fmt::format("network driver {} is not available: this kernel was built without {}",
                                                 kind, kind == "macvlan" ? "CONFIG_MACVLAN" : "CONFIG_IPVLAN"));
}

bool ensure_parent(sys::NetlinkSocket& socket, const std::string& parent) {
  if (sys::find_link(socket, parent)) return false;
  sys::NetlinkBatch batch;
  if (is_dummy_parent(parent)) {
    sys::add_dummy(batch, parent);
    make(socket, std::move(batch), parent, "CONFIG_DUMMY; name one of the host's interfaces with -o parent=…");
    return true;
  }
  const auto [base, id] = parse_vlan_interface(parent);
  const auto link = sys::find_link(socket, base);
  if (!link) throw Error(Errc::internal, fmt::format("-o parent interface was not found on the host: {}", base));
  sys::SubInterfaceSpec spec;
  spec.name = parent;
  spec.kind = "vlan";
  spec.parent = link->index;
  spec.mode = static_cast<std::uint32_t>(id);
  sys::add_sub_interface(batch, spec);
  make(socket, std::move(batch), parent, "CONFIG_VLAN_8021Q");
  return true;
}

void remove_parent(sys::NetlinkSocket& socket, const std::string& parent) {
  sys::NetlinkBatch batch;
  sys::add_remove_link(batch, parent);
  const auto failures = socket.send(std::move(batch));
  if (!failures.empty() && failures.front().error != ENODEV) throw sys::NetlinkSocket::to_error(failures.front());
}

std::uint32_t vlan_mode_number(const std::string& kind, const std::string& mode) {
  static const std::map<std::string, std::uint32_t> kMac{{"private", MACVLAN_MODE_PRIVATE},
                                                         {"vepa", MACVLAN_MODE_VEPA},
                                                         {"bridge", MACVLAN_MODE_BRIDGE},
                                                         {"passthru", MACVLAN_MODE_PASSTHRU}};
  static const std::map<std::string, std::uint32_t> kIp{
      {"l2", IPVLAN_MODE_L2}, {"l3", IPVLAN_MODE_L3}, {"l3s", IPVLAN_MODE_L3S}};
  return (kind == "macvlan" ? kMac : kIp).at(mode);
}

std::uint16_t ipvlan_flag_number(const std::string& flag) {
  if (flag == "private") return IPVLAN_F_PRIVATE;
  return flag == "vepa" ? IPVLAN_F_VEPA : 0;
}

}  // namespace gantry::network
