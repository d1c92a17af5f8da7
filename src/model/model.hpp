#pragma once

#include "json/json.hpp"
#include "model/container_config.hpp"
#include "model/host_config.hpp"
#include "model/network.hpp"

/// The large structs' codecs, compiled once. Each decode throws invalid_argument naming the field.
namespace gantry::model {

ContainerConfig decode_container_config(const json::Value& value);
HostConfig decode_host_config(const json::Value& value);
NetworkingConfig decode_networking_config(const json::Value& value);
EndpointSettings decode_endpoint_settings(const json::Value& value);
json::Value encode(const ContainerConfig& config);
json::Value encode(const HostConfig& config);
json::Value encode(const EndpointSettings& settings);
json::Value encode(const PortMap& ports);

}  // namespace gantry::model
