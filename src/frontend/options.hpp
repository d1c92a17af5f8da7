#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/time.hpp"
#include "dockerfile/instruction.hpp"
#include "image/platform.hpp"

namespace gantry::frontend {

using OptionMap = std::map<std::string, std::string>;

enum class ResolveMode { standard, pull, local };

struct ExtraHost {
  std::string name;
  std::string address;
};

struct UlimitOption {
  std::string name;
  std::int64_t soft = 0;
  std::int64_t hard = 0;
};

/// What a client asks of a build: the strings of buildkit.md §2.5, read.
struct BuildOptions {
  std::string filename = "Dockerfile";
  std::string target;
  std::vector<image::Platform> platforms;  // empty: the worker's own
  std::map<std::string, std::string> build_args;
  std::map<std::string, std::string> labels;
  bool no_cache = false;
  std::set<std::string> no_cache_stages;  // lower case
  ResolveMode resolve_mode = ResolveMode::standard;
  std::string context;  // of another machine; empty: the client's directory
  std::string context_subdirectory;
  std::string context_name = "context";  // of the client's directories
  std::string dockerfile_name = "dockerfile";
  bool dockerfile_is_local = false;                   // also with a remote context
  std::map<std::string, std::string> named_contexts;  // "NAME" or "NAME::platform"
  std::map<std::string, std::string> input_metadata;  // of "input:" contexts, by key: JSON
  std::map<std::string, std::string> local_sessions;  // a client's directory that comes from another session
  std::map<std::string, std::string> shared_keys;     // of named local contexts
  std::optional<dockerfile::RunNetwork> network;      // for RUNs that do not say
  std::string network_name;  // of a network or "container:x", for RUNs with a network of their own
  std::vector<ExtraHost> extra_hosts;
  std::int64_t shm_size = 0;  // bytes; 0: the default
  std::vector<UlimitOption> ulimits;
  std::string cgroup_parent;
  std::string hostname;
  bool multi_platform = false;
  std::string request;  // of another kind than a build: "frontend.lint" …
  std::string syntax;   // BUILDKIT_SYNTAX or the `cmdline` of a forwarded build
  std::string cache_mount_namespace;
  std::optional<bool> keep_git_directory;
  std::optional<Timestamp> source_date_epoch;
  std::optional<std::string> check;
  std::string build_name;      // empty: none
  bool classic = false;        // by the rules of the classic builder: references as typed, ENV before ARG
  std::string context_source;  // a source op's identifier that is the build context; empty: by `context`
  bool every_stage = false;    // also those that the target does not need
};

/// Throws invalid_argument, naming the option. Unknown options are ignored, as BuildKit does; a required capability
/// (`frontend.caps`) that is not ours throws not_implemented.
BuildOptions parse_options(const OptionMap& options);

}  // namespace gantry::frontend
