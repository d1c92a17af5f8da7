#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/lanes.hpp"
#include "async/task.hpp"
#include "engine/container.hpp"

namespace gantry::db {
class Db;
}

namespace gantry::engine {

/// A name that nobody else can take while this lives. Given back unless kept.
class NameReservation {
 public:
  NameReservation() = default;
  NameReservation(std::set<std::string>* names, std::string name) : names_(names), name_(std::move(name)) {}
  NameReservation(NameReservation&& other) noexcept
      : names_(std::exchange(other.names_, nullptr)), name_(std::move(other.name_)) {}
  NameReservation& operator=(NameReservation&&) = delete;
  ~NameReservation() {
    if (names_ != nullptr) names_->erase(name_);
  }
  const std::string& name() const noexcept { return name_; }

 private:
  std::set<std::string>* names_ = nullptr;
  std::string name_;
};

/// All containers: the index in memory, written through to their rows. Loop thread only; lookups never wait.
class ContainerStore {
 public:
  ContainerStore(async::Lanes& lanes, db::Db& db) : lanes_(lanes), db_(db) {}

  /// Reads the rows. Returns one sentence for each row that cannot be understood; such a row stays where it is.
  Task<std::vector<std::string>> load();

  /// By full id, then name (with or without "/"), then unique id prefix.
  /// Throws not_found `No such container: x`, invalid_argument for an empty text or an ambiguous prefix.
  ContainerPtr get(const std::string& name_or_id) const;
  ContainerPtr find(const std::string& name_or_id) const;  // nullptr instead
  ContainerPtr find_by_name(const std::string& name) const;
  /// Newest first.
  std::vector<ContainerPtr> list() const;
  std::size_t size() const noexcept { return by_id_.size(); }

  /// Throws conflict with Docker's text, naming the container that has it.
  NameReservation reserve_name(const std::string& name);

  /// Commits the row, then shows the container. Durable on return.
  Task<void> insert(ContainerPtr container);
  /// Commits `state`. What is written is the state at the time of the call.
  Task<void> save_state(ContainerPtr container);
  /// Commits everything.
  Task<void> save(ContainerPtr container);
  Task<void> rename(ContainerPtr container, std::string name);
  /// Deletes the row, then forgets the container.
  Task<void> remove(ContainerPtr container);

 private:
  async::Lanes& lanes_;
  db::Db& db_;
  std::unordered_map<std::string, ContainerPtr> by_id_;
  std::map<std::string, ContainerPtr> by_name_;
  std::set<std::string> reserved_;
};

}  // namespace gantry::engine
