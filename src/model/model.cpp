#include "model/model.hpp"

#include "json/codec.hpp"

namespace gantry::model {

ContainerConfig decode_container_config(const json::Value& value) { return json::decode<ContainerConfig>(value); }
HostConfig decode_host_config(const json::Value& value) { return json::decode<HostConfig>(value, "HostConfig"); }
NetworkingConfig decode_networking_config(const json::Value& value) {
  return json::decode<NetworkingConfig>(value, "NetworkingConfig");
}
json::Value encode(const ContainerConfig& config) { return json::encode(config); }
json::Value encode(const HostConfig& config) { return json::encode(config); }
json::Value encode(const EndpointSettings& settings) { return json::encode(settings); }
json::Value encode(const PortMap& ports) { return json::encode(ports); }
EndpointSettings decode_endpoint_settings(const json::Value& value) {
  return json::decode<EndpointSettings>(value, "EndpointSettings");
}

}  // namespace gantry::model
