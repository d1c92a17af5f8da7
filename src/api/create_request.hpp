#pragma once

#include <string>

#include "api/versions.hpp"
#include "engine/containers.hpp"

namespace gantry::api {

/// What the meaning of a request depends on beside its version.
struct CreateContext {
  ApiVersion version = kMaxApiVersion;
  bool cgroup_v2 = false;  // containers' limits live in version 2
};

/// Reads the body of POST /containers/create: Config's fields at the top, HostConfig and NetworkingConfig, as the
/// client's version meant them (engine-api.md §1.6). `name` and `platform` stay empty.
/// Throws invalid_argument with Docker's texts.
engine::CreateRequest read_create_request(const std::string& body, const CreateContext& context);

}  // namespace gantry::api
