#pragma once

#include <string>
#include <vector>

#include "buildlink/engine.hpp"
#include "buildops/exec_mounts.hpp"
#include "llb/definition.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/seccomp.hpp"
#include "runtime/spec.hpp"

namespace gantry::buildops {

/// The name of the machine that a step sees unless the definition gives another.
inline constexpr std::string_view kExecHostname = "buildkitsandbox";

/// What of a process step is not in its definition.
struct ExecInputs {
  std::string id;
  const ExecMounts& mounts;
  runtime::ProcessUser user;
  std::vector<std::string> secret_env;
  const buildlink::Settings& settings;
  sys::Path netns;  // empty: the host's
  sys::Path hosts_file;
  sys::Path resolv_file;
};

/// Hostname of the step.
std::string exec_hostname(const pb::ExecOp& op);
/// The environment, in the order that later names win.
std::vector<std::string> exec_environment(const pb::ExecOp& op, const ExecInputs& inputs);
/// Everything for the runtime.
runtime::ContainerSpec make_exec_spec(const pb::ExecOp& op, const ExecInputs& inputs, const runtime::HostFacts& facts,
                                      runtime::SeccompCache& seccomp);
/// The path of the step's control group.
std::string exec_cgroup(const pb::ExecOp& op, const std::string& id, const buildlink::Settings& settings);

}  // namespace gantry::buildops
