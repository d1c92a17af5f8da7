#pragma once

#include <map>
#include <string>

#include "async/task.hpp"
#include "engine/container_store.hpp"
#include "engine/services.hpp"
#include "engine/system_source.hpp"
#include "storage/rootfs.hpp"

namespace gantry::db {
class Db;
}

namespace gantry::engine {

/// The version that clients are told: they compare it with Docker's.
inline constexpr std::string_view kEngineVersion = "28.0.0";

/// What /info and /version say. Everything is in memory; the machine was looked at once, when the daemon started.
class SystemInfoSource final : public SystemSource {
 public:
  SystemInfoSource(Services& services, ContainerStore& store) : services_(services), store_(store) {}

  void set_storage_facts(storage::StorageFacts facts) { storage_ = std::move(facts); }
  /// Reads the daemon's id, or makes and stores one. Durable on return.
  Task<void> load_identity(db::Db& db);
  const std::string& id() const noexcept { return id_; }

  Task<SystemInfo> info() override;
  SystemVersion version() override;
  /// What a `reload` event tells: the settings that may change while the daemon runs.
  std::map<std::string, std::string> reload_attributes() const;

 private:
  void put_counts(SystemInfo& info) const;
  void put_host(SystemInfo& info) const;
  void put_limits(SystemInfo& info) const;
  void put_storage(SystemInfo& info) const;
  void put_registries(SystemInfo& info) const;
  void put_runtimes(SystemInfo& info) const;
  void put_network(SystemInfo& info) const;

  Services& services_;
  ContainerStore& store_;
  storage::StorageFacts storage_;
  std::string id_;
};

}  // namespace gantry::engine
