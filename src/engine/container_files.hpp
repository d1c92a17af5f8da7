#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/task.hpp"
#include "engine/container_store.hpp"
#include "engine/lifecycle.hpp"
#include "engine/services.hpp"
#include "engine/stream_client.hpp"
#include "storage/changes.hpp"

namespace gantry::engine {

/// What the container changed in its image's files.
Task<std::vector<storage::Change>> list_changes(Services& services, ContainerStore& store, std::string reference);

/// The container whose files can be exported. Throws not_found; conflict if it is dead or being removed.
ContainerPtr begin_export(const ContainerStore& store, const std::string& reference);
/// Writes its whole tree as a tar, as fast as the client takes it. Publishes `export`.
Task<void> run_export(Services& services, Lifecycle& lifecycle, ContainerPtr container,
                      std::shared_ptr<ByteWriter> writer);

}  // namespace gantry::engine
