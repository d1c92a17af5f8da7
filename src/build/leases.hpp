#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "async/lanes.hpp"
#include "async/task.hpp"
#include "db/build_rows.hpp"
#include "image/content_store.hpp"
#include "storage/layer_store.hpp"

namespace gantry::build {

/// What the builder keeps in the daemon's stores. Loop thread.
///
/// A layer that it gave to the daemon has a row and stays until it is released. What it only uses for a while is held
/// in memory and goes with the worker.
class Leases {
 public:
  Leases(async::Lanes& lanes, db::Db& db, storage::LayerStore& layers, image::ContentStore& content)
      : lanes_(lanes), db_(db), layers_(layers), content_(content) {}

  /// Holds what the rows say, and forgets rows of layers that are not stored. After the stores' recover(), before
  /// anything is removed from them.
  Task<void> recover();

  /// Durable. `blob`: of the layer's compressed tar.
  Task<void> keep(std::string chain, std::string blob);
  /// Idempotent. What nothing else uses can then be removed. Durable.
  Task<void> release(std::string chain);
  bool is_kept(const std::string& chain) const { return kept_.contains(chain); }
  /// Chains with the digests of their blobs.
  std::map<std::string, std::string> list() const;

  /// Held until drop() or drop_all(). Returns its number.
  std::uint64_t hold(const std::string& chain, const std::vector<std::string>& blobs);
  void drop(std::uint64_t lease) { held_.erase(lease); }
  void drop_all() { held_.clear(); }

 private:
  struct Held {
    storage::LayerHold layers;
    image::BlobHold blobs;
  };
  struct Kept {
    std::string blob;
    Held held;
  };
  Held make(const std::string& chain, const std::vector<std::string>& blobs);

  async::Lanes& lanes_;
  db::Db& db_;
  storage::LayerStore& layers_;
  image::ContentStore& content_;
  std::map<std::string, Kept> kept_;
  std::map<std::uint64_t, Held> held_;
  std::uint64_t last_ = 0;
};

}  // namespace gantry::build
