#include "api/network_json.hpp"

namespace gantry::api {
namespace {

using Texts = std::map<std::string, std::string>;

void write_texts(JsonWriter& json, const Texts& texts) {
  json.begin_object();
  for (const auto& [key, value] : texts) json.field(key, value);
  json.end_object();
}

void write_ipam(JsonWriter& json, const network::NetworkInfo& network) {
  json.begin_object().field("Driver", network.ipam_driver).key("Options");
  if (network.predefined && network.ipam_options.empty()) json.null();
  else write_texts(json, network.ipam_options);
  json.key("Config").begin_array();
  for (const network::IpamConfig& config : network.ipam) {
    json.begin_object().field("Subnet", config.subnet);
    if (!config.ip_range.empty()) json.field("IPRange", config.ip_range);
    if (!config.gateway.empty()) json.field("Gateway", config.gateway);
    if (!config.auxiliary_addresses.empty()) {
      json.key("AuxiliaryAddresses");
      write_texts(json, config.auxiliary_addresses);
    }
    json.end_object();
  }
  json.end_array().end_object();
}

void write_members(JsonWriter& json, const network::NetworkInfo& network) {
  json.begin_object();
  for (const network::NetworkMember& member : network.members) {
    json.key(member.container_id.empty() ? "ep-" + member.endpoint_id : member.container_id).begin_object();
    json.field("Name", member.name).field("EndpointID", member.endpoint_id).field("MacAddress", member.mac_address);
    json.field("IPv4Address", member.ipv4_address).field("IPv6Address", member.ipv6_address).end_object();
  }
  json.end_object();
}

}  // namespace

void write_network(JsonWriter& json, const network::NetworkInfo& network, bool with_containers) {
  json.begin_object();
  json.field("Name", network.name).field("Id", network.id).field("Created", render_rfc3339_nano(network.created));
  json.field("Scope", network.scope).field("Driver", network.driver);
  json.field("EnableIPv4", network.enable_ipv4).field("EnableIPv6", network.enable_ipv6).key("IPAM");
  write_ipam(json, network);
  json.field("Internal", network.internal).field("Attachable", network.attachable).field("Ingress", false);
  json.key("ConfigFrom").begin_object().field("Network", network.config_from).end_object();
  json.field("ConfigOnly", network.config_only);
  if (with_containers) {
    json.key("Containers");
    write_members(json, network);
  }
  json.key("Options");
  write_texts(json, network.options);
  json.key("Labels");
  write_texts(json, network.labels);
  json.end_object();
}

}  // namespace gantry::api
