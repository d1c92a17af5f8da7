#pragma once

#include <functional>
#include <memory>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "buildcache/index.hpp"
#include "buildcache/mutables.hpp"
#include "buildcache/prune.hpp"
#include "buildcache/snapshots.hpp"

namespace gantry::buildcache {

/// What the cache asks the daemon about layers. Each may be empty; each is called without locks and may block.
struct LayerHooks {
  /// Keeps a layer and those below it in the daemon while the result lives; nullptr if it is no longer there. Without
  /// it, a look at the directory decides.
  std::function<std::shared_ptr<void>(const std::string& chain_id)> hold;
  /// The cache no longer needs a layer that it gave to the daemon (Engine::release_layer). May come twice.
  std::function<void(const std::string& chain_id)> release;
  /// Which of these layers belong to images.
  std::function<std::set<std::string>(const std::vector<std::string>& chain_ids)> used_by_images;
};

/// The whole cache, below one directory that nobody else touches (the worker holds its lock):
///
///   <root>/cache.db         rows: the only truth
///   <root>/trees/<id>/      diff (the layer), work (while it is made), notes (digests of a context's files)
///   <root>/mounts/          where trees are mounted, in the worker's mount namespace
///   <root>/empty/           below every tree that starts from nothing
///
/// A worker that is killed loses what was being made. After a crash of the machine, what was not yet on stable storage
/// (see settle) is forgotten.
class Cache {
 public:
  /// Opens or makes it, and puts right what a killed worker left. A damaged database is put aside and everything that
  /// it knew removed. Call it inside of the worker's mount namespace.
  Cache(sys::Path root, LayerHooks hooks);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  Snapshots& snapshots() noexcept;
  Mutables& mutables() noexcept;
  CacheIndex& index() noexcept;
  const sys::Path& root() const noexcept;

  /// The chain ids of all layers that the daemon keeps for this cache, as far as the cache knows: it can release
  /// others.
  std::set<std::string> daemon_layers();

  /// All records that the filters match. Sizes of directories that were written to are counted anew.
  std::vector<UsageRecord> usage(const std::vector<std::string>& filters = {});
  /// Removes what the options say and nobody uses, users before what they use. Calls `removed` for each. Throws
  /// cancelled when stopped between two.
  void prune(const PruneOptions& options, const std::function<void(const UsageRecord&)>& removed, std::stop_token stop);

  /// Collects with these policies from now on: when asked, and once a minute if something was made since.
  void set_gc(std::vector<PruneOptions> policies);
  /// Collects soon, in a thread of its own. For the end of a build.
  void collect_soon();
  /// Puts what is finished on stable storage. Done before collecting, and by the destructor.
  void settle();

  /// What does not fit together, one line each, for the doctor; with `repair` it is put right. Walks no trees.
  std::vector<std::string> check(bool repair);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace gantry::buildcache
