#include "network/ipam.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "network/network_options.hpp"
#include "network/networks.hpp"

namespace gantry::network {

AddressRange::AddressRange(Cidr subnet, Cidr range)
    : subnet_(subnet.masked()), range_(range.empty() ? subnet_ : range.masked()) {
  const Wide last = subnet_.last().number() - subnet_.first().number();
  if (subnet_.address.is_v6()) {
    if (subnet_.length < 127) taken_.insert(0);  // the subnet routers' anycast address (RFC 4291 §2.6.1)
  } else if (subnet_.length < 31) {
    taken_.insert(0);
    taken_.insert(last);
  }
}

std::optional<IpAddress> AddressRange::try_take_any() {
  const Wide base = subnet_.first().number();
  Wide candidate = range_.first().number() - base;
  const Wide last = range_.last().number() - base;
  for (auto it = taken_.lower_bound(candidate); it != taken_.end() && *it == candidate; ++it) ++candidate;
  if (candidate > last) return std::nullopt;
  taken_.insert(candidate);
  return IpAddress::from_number(subnet_.address.family(), base + candidate);
}

IpAddress AddressRange::take_any(const std::string& network_name, const std::string& network_id) {
  if (const auto address = try_take_any()) return *address;
  throw Error(Errc::internal, fmt::format("no available {} addresses on this network's address pools: {} ({})",
                                          subnet_.address.is_v6() ? "IPv6" : "IPv4", network_name, network_id));
}

bool AddressRange::reserve(const IpAddress& address) {
  if (!subnet_.contains(address))
    throw Error(Errc::invalid_argument, fmt::format("no configured subnet contains IP address {}", address.str()));
  return taken_.insert(address.number() - subnet_.first().number()).second;
}

void AddressRange::take(const IpAddress& address) {
  if (!reserve(address)) throw Error(Errc::forbidden, "Address already in use");
}

void AddressRange::release(const IpAddress& address) {
  if (subnet_.contains(address)) taken_.erase(address.number() - subnet_.first().number());
}

bool AddressRange::is_taken(const IpAddress& address) const {
  return subnet_.contains(address) && taken_.count(address.number() - subnet_.first().number()) != 0;
}

SubnetPlan::SubnetPlan(std::vector<AddressPool> pools) : pools_(std::move(pools)) {}

std::optional<Cidr> SubnetPlan::find(Family family, const std::vector<Cidr>& used, const std::vector<Cidr>& avoid,
                                     unsigned size) const {
  std::vector<Cidr> taken;
  for (const auto* list : {&used, &avoid}) {
    for (const Cidr& cidr : *list)
      if (cidr.address.family() == family) taken.push_back(cidr.masked());
  }
  std::sort(taken.begin(), taken.end(),
            [](const Cidr& a, const Cidr& b) { return a.address.number() < b.address.number(); });
  for (const AddressPool& pool : pools_) {
    if (pool.base.address.family() != family) continue;
    const unsigned length = size == 0 ? pool.size : size;
    if (length < pool.base.length || length > pool.base.width()) continue;
    const Wide step = Cidr{pool.base.address, length}.size();
    const Wide end = pool.base.last().number();
    Wide at = pool.base.first().number();
    bool full = false;
    // One walk: `at` is the lowest candidate that what came before does not reach into.
    for (const Cidr& cidr : taken) {
      const Wide first = cidr.first().number();
      const Wide last = cidr.last().number();
      if (last < at) continue;
      if (first > at && first - at >= step) break;
      full = last >= end;
      if (full) break;
      at = (last / step + 1) * step;
    }
    if (!full && at <= end && end - at >= step - 1) return Cidr{IpAddress::from_number(family, at), length};
  }
  return std::nullopt;
}

std::vector<AddressPool> default_address_pools() {
  std::vector<AddressPool> pools;
  // One bridge takes 1023 ports, so a /22 wastes nothing. The first two networks keep Docker's familiar size.
  pools.push_back({Cidr::parse("172.17.0.0/16"), 16});
  pools.push_back({Cidr::parse("172.18.0.0/16"), 16});
  pools.push_back({Cidr::parse("172.19.0.0/16"), 22});
  pools.push_back({Cidr::parse("172.20.0.0/14"), 22});
  pools.push_back({Cidr::parse("172.24.0.0/14"), 22});
  pools.push_back({Cidr::parse("172.28.0.0/14"), 22});
  pools.push_back({Cidr::parse("192.168.0.0/16"), 24});
  return pools;
}

namespace {

void check_config(const IpamConfig& config, bool enable_ipv6, std::vector<std::string>& findings) {
  auto subnet = Cidr::find(config.subnet);
  if (!subnet) {
    findings.push_back(fmt::format("invalid subnet {}: invalid CIDR block notation", config.subnet));
    return;
  }
  if (subnet->masked().address != subnet->address)
    findings.push_back(fmt::format("invalid subnet {}: it should be {}", subnet->str(), subnet->masked().str()));
  if (subnet->address.is_v6() && !enable_ipv6) return;  // kept and ignored, as Docker does
  const char* kind = subnet->address.is_v6() ? "IPv6" : "IPv4";
  if (!config.ip_range.empty()) {
    auto range = Cidr::find(config.ip_range);
    if (!range) {
      findings.push_back(fmt::format("invalid ip-range {}: invalid CIDR block notation", config.ip_range));
    } else if (range->address.family() != subnet->address.family()) {
      findings.push_back(fmt::format("invalid ip-range {}: parent subnet is an {} block", range->str(), kind));
    } else {
      if (range->masked().address != range->address)
        findings.push_back(fmt::format("invalid ip-range {}: it should be {}", range->str(), range->masked().str()));
      if (range->length < subnet->length)
        findings.push_back(fmt::format("invalid ip-range {}: CIDR block is bigger than its parent subnet {}",
                                       range->str(), subnet->str()));
      else if (!subnet->contains(*range))
        findings.push_back(
            fmt::format("invalid ip-range {}: parent subnet {} doesn't contain ip-range", range->str(), subnet->str()));
    }
  }
  auto check_address = [&](const std::string& label, const std::string& text) {
    auto address = IpAddress::find(text);
    if (!address) findings.push_back(fmt::format("invalid {}: invalid address", label));
    else if (address->family() != subnet->address.family())
      findings.push_back(fmt::format("invalid {}: parent subnet is an {} block", label, kind));
    else if (!subnet->contains(*address))
      findings.push_back(
          fmt::format("invalid {}: parent subnet {} doesn't contain this address", label, subnet->str()));
  };
  if (!config.gateway.empty()) check_address("gateway " + config.gateway, config.gateway);
  for (const auto& [name, address] : config.auxiliary_addresses) check_address("auxiliary address " + name, address);
}

}  // namespace

void validate_ipam(const std::vector<IpamConfig>& configs, bool enable_ipv6) {
  std::vector<std::string> findings;
  for (const IpamConfig& config : configs) {
    if (!config.subnet.empty()) check_config(config, enable_ipv6, findings);
  }
  if (!findings.empty()) throw Error(Errc::invalid_argument, "invalid network config:\n" + join_findings(findings));
}

}  // namespace gantry::network
