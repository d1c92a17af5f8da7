#pragma once

#include <optional>
#include <string>

#include "protocol/native_process.hpp"
#include "runtime/spec.hpp"
#include "sys/cgroup.hpp"

namespace gantry::runtime {

/// The process as gantry-shim makes it itself (protocol/native_process.hpp), without its confinement and groups. `home`
/// is what HOME becomes where the environment has none. nullopt for what a runtime refuses: its words are the right
/// ones then.
std::optional<protocol::NativeProcess> make_native_process(const ProcessSpec& process, const std::string& home);

/// The directories of the control group `group` in every hierarchy of this machine.
void set_cgroups(protocol::NativeProcess& process, const sys::CgroupLayout& layout, const std::string& group);

}  // namespace gantry::runtime
