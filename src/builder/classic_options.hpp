#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "buildlink/engine.hpp"
#include "buildlink/link.hpp"
#include "frontend/options.hpp"

namespace gantry::builder {

/// `POST /build` of version 1: its parameters (buildkit.md §1.2).
struct ClassicOptions {
  std::string dockerfile;  // path in the context; empty: "Dockerfile"
  std::vector<std::string> tags;
  std::string remote;  // a git or HTTP address instead of a body
  bool quiet = false;
  bool no_cache = false;
  bool pull = false;
  bool squash = false;
  std::map<std::string, std::string> build_args;
  std::vector<std::string> unset_build_args;  // declared without a value
  std::map<std::string, std::string> labels;
  std::vector<std::string> cache_from;
  std::vector<std::string> extra_hosts;  // "name:address"
  std::string network_mode;
  std::string target;
  std::string platform;
  std::string cgroup_parent;
  std::int64_t shm_size = 0;
  std::vector<frontend::UlimitOption> ulimits;
  std::string build_id;
  std::map<std::string, buildlink::RegistryAuth> registries;  // by host
};

/// Throws invalid_argument, naming the parameter.
ClassicOptions read_classic_options(const buildlink::Incoming& incoming);

/// Credentials for the registry of a reference; empty if the client sent none.
buildlink::RegistryAuth auth_for(const ClassicOptions& options, const std::string& reference);

}  // namespace gantry::builder
