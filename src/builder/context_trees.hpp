#pragma once

#include <map>
#include <mutex>
#include <string>

#include "buildcache/snapshots.hpp"
#include "solver/operation.hpp"

namespace gantry::builder {

/// Build contexts that came as archives, by a name that ops can use: `gantry-context://<id>`. Thread-safe.
class ContextTrees {
 public:
  /// Known until the result goes.
  class Entry {
   public:
    Entry(ContextTrees& trees, std::string id) : trees_(trees), id_(std::move(id)) {}
    ~Entry() { trees_.remove(id_); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    std::string identifier() const;

   private:
    ContextTrees& trees_;
    std::string id_;
  };
  std::unique_ptr<Entry> add(buildcache::SnapshotPtr tree);
  /// Throws not_found.
  buildcache::SnapshotPtr get(const std::string& id) const;

 private:
  void remove(const std::string& id);
  mutable std::mutex mutex_;
  std::map<std::string, buildcache::SnapshotPtr> trees_;
  std::uint64_t last_ = 0;
};

/// `inner`, and sources of `gantry-context://`. `trees` outlives it.
solver::OperationFactory with_context_trees(solver::OperationFactory inner, ContextTrees& trees);

}  // namespace gantry::builder
