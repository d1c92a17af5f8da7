#include "build/leases.hpp"

#include "base/log.hpp"

namespace gantry::build {

Leases::Held Leases::make(const std::string& chain, const std::vector<std::string>& blobs) {
  Held held{layers_.hold(), content_.hold()};
  held.layers.add(chain);
  for (const std::string& blob : blobs)
    if (!blob.empty()) held.blobs.add(blob);
  return held;
}

Task<void> Leases::recover() {
  kept_.clear();
  const auto rows = co_await lanes_.db.run([&db = db_] { return db::list_build_layers(db); });
  std::vector<std::string> gone;
  for (const db::BuildLayerRow& row : rows) {
    // Killed between the two rows, or the layer's was lost.
    if (layers_.find(row.chain_id) == nullptr) gone.push_back(row.chain_id);
    else kept_.emplace(row.chain_id, Kept{row.blob_digest, make(row.chain_id, {row.blob_digest})});
  }
  if (gone.empty()) co_return;
  log::debug("{} layers of the build cache are not stored: forgotten", gone.size());
  co_await lanes_.db.run([&db = db_, gone] {
    for (const std::string& chain : gone) db::remove_build_layer(db, chain);
  });
}

Task<void> Leases::keep(std::string chain, std::string blob) {
  kept_.insert_or_assign(chain, Kept{blob, make(chain, {blob})});
  co_await lanes_.db.run([&db = db_, chain, blob] { db::save_build_layer(db, {chain, blob}); });
}

Task<void> Leases::release(std::string chain) {
  if (kept_.erase(chain) == 0) co_return;
  co_await lanes_.db.run([&db = db_, chain] { db::remove_build_layer(db, chain); });
}

std::map<std::string, std::string> Leases::list() const {
  std::map<std::string, std::string> out;
  for (const auto& [chain, kept] : kept_) out[chain] = kept.blob;
  return out;
}

std::uint64_t Leases::hold(const std::string& chain, const std::vector<std::string>& blobs) {
  held_.emplace(++last_, make(chain, blobs));
  return last_;
}

}  // namespace gantry::build
