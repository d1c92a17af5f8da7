#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe/class.hpp>

#include "json/fields.hpp"

namespace gantry::model {

using json::Omit;
using json::StringMap;

struct PortBinding {
  std::string HostIp;
  std::string HostPort;
  bool operator==(const PortBinding&) const = default;
};
BOOST_DESCRIBE_STRUCT(PortBinding, (), (HostIp, HostPort))

/// "80/tcp" to where it is published; null for a port that is exposed only.
using PortMap = std::map<std::string, std::optional<std::vector<PortBinding>>>;

struct EndpointIpamConfig {
  Omit<std::string> IPv4Address;
  Omit<std::string> IPv6Address;
  Omit<std::vector<std::string>> LinkLocalIPs;
};
BOOST_DESCRIBE_STRUCT(EndpointIpamConfig, (), (IPv4Address, IPv6Address, LinkLocalIPs))

struct EndpointSettings {
  std::optional<EndpointIpamConfig> IPAMConfig;
  std::optional<std::vector<std::string>> Links;
  std::optional<std::vector<std::string>> Aliases;
  std::string MacAddress;
  std::optional<StringMap> DriverOpts;
  std::int64_t GwPriority = 0;
  std::string NetworkID;
  std::string EndpointID;
  std::string Gateway;
  std::string IPAddress;
  std::int64_t IPPrefixLen = 0;
  std::string IPv6Gateway;
  std::string GlobalIPv6Address;
  std::int64_t GlobalIPv6PrefixLen = 0;
  std::optional<std::vector<std::string>> DNSNames;
};
BOOST_DESCRIBE_STRUCT(EndpointSettings, (),
                      (IPAMConfig, Links, Aliases, MacAddress, DriverOpts, GwPriority, NetworkID, EndpointID, Gateway,
                       IPAddress, IPPrefixLen, IPv6Gateway, GlobalIPv6Address, GlobalIPv6PrefixLen, DNSNames))

struct NetworkingConfig {
  std::optional<std::map<std::string, std::optional<EndpointSettings>>> EndpointsConfig;
};
BOOST_DESCRIBE_STRUCT(NetworkingConfig, (), (EndpointsConfig))

}  // namespace gantry::model
