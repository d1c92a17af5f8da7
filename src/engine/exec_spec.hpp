#pragma once

#include <string>
#include <vector>

#include "engine/exec.hpp"
#include "protocol/native_process.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/resources.hpp"
#include "sys/paths.hpp"

namespace gantry::engine {

/// Everything that an exec's process.json is made of, copied, so that a lane can work on it.
struct ExecInputs {
  model::ContainerConfig config;
  model::HostConfig host;
  ExecOptions options;
  std::string hostname;
  std::vector<std::string> link_env;  // as the container's first process has it
  sys::Path rootfs;
  std::vector<runtime::Ulimit> default_ulimits;
  bool daemon_no_new_privileges = false;
  std::string cgroup;  // "/docker/<id>"
};

struct BuiltProcess {
  std::string process_json;
  /// For the shim; without the container's confinement. Null if the runtime must make it.
  std::unique_ptr<protocol::NativeProcess> native;
};

/// The process as the runtime reads it, and as the shim does. Resolves the user in the container's own files. Throws
/// invalid_argument with Docker's texts. Blocks: call it in a lane.
BuiltProcess build_process_blocking(const ExecInputs& inputs, const runtime::HostFacts& facts);

/// An exec as the daemon keeps it beside the container's shim, for a daemon that comes after it.
std::string encode_exec(const Exec& exec);
/// Throws invalid_argument.
void decode_exec(const std::string& text, Exec& into);

}  // namespace gantry::engine
