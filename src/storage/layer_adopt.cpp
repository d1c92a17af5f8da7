#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "db/sqlite.hpp"
#include "storage/hash.hpp"
#include "storage/layer_files.hpp"
#include "storage/layer_store.hpp"
#include "storage/tree.hpp"

namespace gantry::storage {
namespace {

/// Takes the directory over into tmp/, where a crash leaves it to be removed.
std::shared_ptr<StagedLayer> stage_directory(const sys::Paths& paths, const sys::Path& directory) {
  auto staged = std::make_shared<StagedLayer>();
  const sys::Path place = paths.tmp() / ("layer-" + random_id().substr(0, 16));
  sys::make_directories(place, 0700);
  staged->directory = place;
  if (::rename(directory.c_str(), (place / "diff").c_str()) != 0)
    throw Error::from_errno(errno, fmt::format("take {} over as a layer", directory.string()));
  FAILPOINT("layer.adopt.after_take");
  return staged;
}

void place_directory(StagedLayer& staged, const sys::Path& place) {
  const sys::Fd root = sys::open_file(staged.directory / "diff", O_RDONLY | O_DIRECTORY);
  const TreeCount count = count_tree(root.get());
  staged.result.entries = count.entries;
  staged.result.bytes = count.bytes;
  settle_layer(staged, {});
  install_layer(staged, place);
}

}  // namespace

Task<Unpacked> LayerStore::adopt(AdoptRequest request) {
  (void)digest_hex(request.diff_id);
  if (!request.parent.empty()) (void)get_chain(request.parent);
  const std::string chain = chain_id(request.parent, request.diff_id);
  for (;;) {
    const Layer* known = find(chain);
    if (known != nullptr && known->state == db::LayerState::ready) {
      Unpacked there{*known, true};
      co_return there;
    }
    const auto busy = works_.find(chain);
    if (busy == works_.end()) break;
    co_await wait_for(busy->second);
  }
  co_return co_await async::shielded(adopt_steps(begin_work(chain), chain, std::move(request)));
}

Task<Unpacked> LayerStore::adopt_steps(WorkPtr work, std::string chain, AdoptRequest request) {
  Layer layer;
  layer.chain_id = chain;
  layer.parent = request.parent;
  layer.diff_id = request.diff_id;
  layer.blob_digest = request.blob_digest;
  layer.created = request.created;
  std::exception_ptr failure;
  try {
    auto staged = co_await lanes_.bulk.run(
        [paths = paths_, directory = request.directory, place = paths_.layer(digest_hex(chain))] {
          auto taken = stage_directory(paths, directory);
          place_directory(*taken, place);
          return taken;
        });
    layer.size = static_cast<std::int64_t>(staged->result.bytes);
    layer.entries = static_cast<std::int64_t>(staged->result.entries);
    layer.fingerprint = staged->fingerprint;
    co_await lanes_.db.run([&db = db_, layer] { db::save_layer(db, layer); });
    FAILPOINT("layer.adopt.after_row");
    layers_[chain] = layer;
  } catch (const Error&) {
    failure = std::current_exception();
  }
  end_work(work);
  if (failure) std::rethrow_exception(failure);
  Unpacked done{layer, false};
  co_return done;
}

}  // namespace gantry::storage
