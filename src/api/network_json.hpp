#pragma once

#include "api/json_writer.hpp"
#include "network/types.hpp"

namespace gantry::api {

/// A network as GET /networks lists it and, with its containers, GET /networks/{id} shows it.
void write_network(JsonWriter& json, const network::NetworkInfo& network, bool with_containers);

}  // namespace gantry::api
