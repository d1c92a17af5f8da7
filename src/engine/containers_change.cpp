#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "engine/containers.hpp"
#include "engine/lifecycle.hpp"
#include "engine/messages.hpp"
#include "engine/names.hpp"
#include "engine/settings.hpp"
#include "runtime/block_limits.hpp"
#include "runtime/devices.hpp"
#include "runtime/limits.hpp"
#include "runtime/spec.hpp"

namespace gantry::engine {

Task<void> Containers::rename(std::string reference, std::string name) {
  ContainerPtr container = store_.get(reference);
  if (!name.empty() && name.front() == '/') name.erase(0, 1);
  if (name.empty()) throw Error(Errc::invalid_argument, "Neither old nor new names may be empty");
  auto lock = co_await container->mutex.lock("rename");
  if (container->removed) throw no_such_container(reference);
  if (name == container->name)
    throw Error(Errc::invalid_argument, "Renaming a container with the same name as its current name");
  const std::string old = container->name;
  try {
    validate_container_name(name, "/");
    NameReservation taken = store_.reserve_name(name);
    co_await async::shielded(store_.rename(container, name));
    FAILPOINT("rename.after_row");
    co_await services_.networks.rename(container->id.str(), name);
  } catch (Error& e) {
    if (e.code() == Errc::conflict || e.code() == Errc::invalid_argument) e.prefix("Error when allocating new name");
    throw;
  }
  lifecycle_.publish(*container, "rename", {{"oldName", "/" + old}});
}

Task<std::vector<std::string>> Containers::update(std::string reference, model::Resources resources,
                                                  std::optional<model::RestartPolicy> policy) {
  ContainerPtr container = store_.get(reference);
  auto lock = co_await container->mutex.lock("update");
  if (container->removed) throw no_such_container(reference);
  runtime::Resources changes = to_runtime_resources(resources);
  std::vector<std::string> warnings = runtime::validate_resources(changes, services_.host, {.update = true});
  const std::string prefix = fmt::format("Cannot update container {}", container->id.str());
  try {
    changes = co_await services_.lanes.quick.run([resolved = changes]() mutable {
      runtime::resolve_block_devices_blocking(resolved);
      return resolved;
    });
    if (policy && !policy->Name.empty()) {
      if (container->host.AutoRemove && policy->Name != "no")
        throw Error(Errc::conflict, "Restart policy cannot be updated because AutoRemove is enabled for the container");
      validate_restart_policy(*policy, false);
    }
    const runtime::Resources wanted = runtime::apply_update(to_runtime_resources(container->host), changes);
    if (container->state.running && !container->state.restarting && container->shim) {
      runtime::ShimClient shim = container->live_shim();
      co_await shim.update(runtime::render_oci_resources(wanted));
      const std::string group = runtime::cgroup_directory(container->cgroup_parent(services_.config.cgroup_parent),
                                                          container->id.str(), services_.config.systemd_cgroups());
      co_await services_.lanes.quick.run(
          [host = &services_.host, group, changes] { runtime::write_block_limits_blocking(*host, group, changes); });
    }
    from_runtime_resources(wanted, container->host);
    if (policy && !policy->Name.empty()) container->host.RestartPolicy = *policy;
  } catch (Error& e) {
    e.prefix(prefix);
    throw;
  }
  co_await async::shielded(store_.save(container));
  lifecycle_.publish(*container, "update");
  co_return warnings;
}

}  // namespace gantry::engine
