#include "storage/layer_store.hpp"

#include <algorithm>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <boost/system/system_error.hpp>

#include "async/shield.hpp"
#include "async/signal.hpp"
#include "base/error.hpp"
#include "base/expect.hpp"
#include "base/failpoint.hpp"
#include "db/sqlite.hpp"
#include "storage/hash.hpp"
#include "storage/init_layer.hpp"
#include "storage/layer_files.hpp"
#include "storage/tree.hpp"
#include "storage/tree_compare.hpp"

namespace gantry::storage {
namespace {

constexpr unsigned kUnpackThreads = 8;
constexpr const char* kUnpackAgain = "unpack it again from its blob";

bool directory_exists(const sys::Path& path) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

std::string subject(const std::string& chain) { return "layer " + chain; }

Layer make_layer(std::string chain, const UnpackRequest& request, const StagedLayer& staged) {
  Layer layer;
  layer.chain_id = std::move(chain);
  layer.parent = request.parent;
  layer.diff_id = staged.diff_id;
  layer.blob_digest = request.blob_digest;
  layer.size = static_cast<std::int64_t>(staged.result.bytes);
  layer.entries = static_cast<std::int64_t>(staged.result.entries);
  layer.created = now();
  layer.fingerprint = staged.fingerprint;
  return layer;
}

}  // namespace

/// One layer's unpacking or removal. Whoever wants the same layer waits for it.
struct LayerStore::Work {
  std::string chain;   // empty until it is known
  std::string parent;  // not to be removed meanwhile
  std::shared_ptr<ByteSource> source;
  bool finished = false;
  std::exception_ptr error;
  Unpacked result;
  async::Signal changed;
};

LayerHold::LayerHold(LayerHold&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), chains_(std::move(other.chains_)) {}

LayerHold& LayerHold::operator=(LayerHold&& other) noexcept {
  if (this != &other) {
    release();
    store_ = std::exchange(other.store_, nullptr);
    chains_ = std::move(other.chains_);
  }
  return *this;
}

LayerHold::~LayerHold() { release(); }

void LayerHold::add(const std::string& chain_id) {
  EXPECTS(store_ != nullptr);
  if (chain_id.empty()) return;
  ++store_->holds_[chain_id];
  chains_.push_back(chain_id);
}

void LayerHold::release() noexcept {
  if (store_ == nullptr) return;
  for (const std::string& chain : chains_)
    if (const auto held = store_->holds_.find(chain); held != store_->holds_.end() && --held->second == 0)
      store_->holds_.erase(held);
  chains_.clear();
}

LayerStore::LayerStore(boost::asio::any_io_executor loop, async::Lanes& lanes, db::Db& db, const sys::Paths& paths)
    : loop_(loop), lanes_(lanes), db_(db), paths_(paths), unpack_lane_("unpack", kUnpackThreads), tasks_(loop) {}

LayerStore::~LayerStore() {
  for (const auto& [chain, work] : works_)
    if (work->source) work->source->abort();  // their threads are joined next
  for (const WorkPtr& work : nameless_) work->source->abort();
}

// ---- start and stop

Task<std::vector<Problem>> LayerStore::recover() {
  struct Found {
    std::vector<Layer> rows;
    std::set<std::string> directories;  // chain digits with a diff directory
    std::vector<sys::Path> sweep;
  };
  auto rows = co_await lanes_.db.run([&db = db_] { return db::list_layers(db); });
  Found found = co_await lanes_.bulk.run([paths = paths_, rows = std::move(rows)]() mutable {
    Found f;
    f.rows = std::move(rows);
    for (const sys::Path& directory : {paths.layers(), paths.containers(), paths.tmp()}) {
      sys::make_directories(directory, 0700);
      sys::spread_subdirectories(directory);
    }
    make_init_layer(init_layer_directory(paths.data_root));
    for (const std::string& name : sys::list_directory(paths.tmp())) f.sweep.push_back(paths.tmp() / name);
    for (const std::string& name : sys::list_directory(paths.layers()))
      if (directory_exists(paths.layer(name) / "diff")) f.directories.insert(name);
      else f.sweep.push_back(paths.layer(name));
    return f;
  });

  std::vector<Problem> problems;
  layers_.clear();
  for (Layer& row : found.rows) {
    const bool there = found.directories.erase(digest_hex(row.chain_id)) > 0;
    if (row.state == db::LayerState::ready && !there) {
      problems.push_back({subject(row.chain_id), "its directory is missing", "unpacked again when it is needed"});
      row.state = db::LayerState::missing;
      co_await lanes_.db.run([&db = db_, row] { db::save_layer(db, row); });
    } else if (row.state == db::LayerState::missing && there) {
      found.sweep.push_back(paths_.layer(digest_hex(row.chain_id)));  // killed before it was removed
    }
    layers_[row.chain_id] = row;
  }
  for (const std::string& name : found.directories) {
    problems.push_back({"directory " + paths_.layer(name).string(), "belongs to no layer", "removed"});
    found.sweep.push_back(paths_.layer(name));
  }
  if (!found.sweep.empty()) {
    // Out of layers/ before anything can be unpacked to the same place; the rest may take its time.
    auto aside = co_await lanes_.bulk.run([paths = paths_, sweep = std::move(found.sweep)] {
      std::vector<sys::Path> renamed;
      for (const sys::Path& path : sweep)
        renamed.push_back(path.parent_path() == paths.tmp() ? path : move_aside(paths, path));
      return renamed;
    });
    tasks_.spawn("removing unfinished layers", sweep(std::move(aside)));
  }
  co_return problems;
}

Task<void> LayerStore::sweep(std::vector<sys::Path> directories) {
  co_await lanes_.bulk.run([directories = std::move(directories)] {
    for (const sys::Path& path : directories) sys::remove_tree(path);
  });
}

Task<void> LayerStore::stop() {
  for (const auto& [chain, work] : works_)
    if (work->source) work->source->abort();
  for (const WorkPtr& work : nameless_) work->source->abort();
  co_await tasks_.join();
}

// ---- unpacking

LayerStore::WorkPtr LayerStore::begin_work(const std::string& chain) {
  auto work = std::make_shared<Work>();
  work->chain = chain;
  if (chain.empty()) nameless_.insert(work);
  else works_[chain] = work;
  return work;
}

void LayerStore::end_work(WorkPtr work) {
  work->finished = true;
  work->source.reset();
  nameless_.erase(work);
  const auto place = works_.find(work->chain);
  if (place != works_.end() && place->second == work) works_.erase(place);
  work->changed.notify();
}

Task<void> LayerStore::wait_for(WorkPtr work) {
  while (!work->finished) co_await work->changed.wait();
}

Task<Unpacked> LayerStore::unpack(UnpackRequest request) {
  EXPECTS(request.source != nullptr);
  if (!request.parent.empty()) (void)digest_hex(request.parent);
  std::string chain;
  if (!request.diff_id.empty()) {
    (void)digest_hex(request.diff_id);
    chain = chain_id(request.parent, request.diff_id);
  }
  while (!chain.empty()) {
    const Layer* known = find(chain);
    if (known != nullptr && known->state == db::LayerState::ready) {
      Unpacked there{*known, true};
      co_return there;
    }
    const auto busy = works_.find(chain);
    if (busy == works_.end()) break;
    co_await wait_for(busy->second);  // if that one fails, ours is tried with its own source
  }
  WorkPtr work = begin_work(chain);
  work->parent = request.parent;
  work->source = request.source;
  struct AbortUnlessFinished {
    WorkPtr work;
    ~AbortUnlessFinished() {
      if (!work->finished) work->source->abort();
    }
  } abort_unless_finished{work};
  tasks_.spawn("unpacking a layer", run_unpack(work, std::move(request)));
  co_await wait_for(work);
  if (work->error) std::rethrow_exception(work->error);
  co_return work->result;
}

Task<void> LayerStore::await_work(std::string chain, std::chrono::milliseconds limit) {
  const auto busy = works_.find(chain);
  if (busy == works_.end() || limit.count() <= 0) co_return;
  const WorkPtr work = busy->second;
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!work->finished && std::chrono::steady_clock::now() < end) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    (void)co_await work->changed.wait_for(left);
  }
}

Task<void> LayerStore::run_unpack(WorkPtr work, UnpackRequest request) {
  try {
    co_await unpack_steps(work, std::move(request));
  } catch (const Error&) {
    work->error = std::current_exception();
  } catch (const boost::system::system_error&) {
    work->error = std::make_exception_ptr(Error(Errc::cancelled, "unpacking was given up"));
  }
  end_work(work);
}

Task<void> LayerStore::unpack_steps(WorkPtr work, UnpackRequest request) {
  std::shared_ptr<StagedLayer> staged =
      co_await unpack_lane_.run([paths = paths_, source = request.source, budget = request.budget] {
        return std::shared_ptr<StagedLayer>(stage_layer(paths, source, budget));
      });
  std::exception_ptr failure;
  try {
    co_await place_steps(work, staged, std::move(request));
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  // What was not put in place is removed by its last owner, which is to be a lane's thread.
  co_await async::shielded(lanes_.bulk.run([last = std::move(staged)]() mutable { last.reset(); }));
  if (failure) std::rethrow_exception(failure);
}

Task<void> LayerStore::place_steps(WorkPtr work, std::shared_ptr<StagedLayer> staged, UnpackRequest request) {
  if (!request.diff_id.empty() && staged->diff_id != request.diff_id)
    throw Error(Errc::corrupted, fmt::format("layer content does not match its digest: expected {}, got {}",
                                             request.diff_id, staged->diff_id));
  const std::string chain = chain_id(request.parent, staged->diff_id);
  while (work->chain.empty()) {
    const Layer* known = find(chain);
    if (known != nullptr && known->state == db::LayerState::ready) {
      work->result = Unpacked{*known, true};
      co_return;
    }
    if (const auto busy = works_.find(chain); busy != works_.end()) {
      co_await wait_for(busy->second);
      continue;
    }
    work->chain = chain;
    works_[chain] = work;
  }
  co_await wait_for_parent(request.parent);
  std::vector<sys::Path> parents;
  if (!staged->result.implicit.empty() || staged->result.opaque_root)
    for (const Layer& layer : get_chain(request.parent)) parents.push_back(directory(layer.chain_id));
  co_await lanes_.bulk.run([staged, parents, place = paths_.layer(digest_hex(chain))] {
    settle_layer(*staged, parents);
    install_layer(*staged, place);
  });
  const Layer layer = make_layer(chain, request, *staged);
  co_await lanes_.db.run([&db = db_, layer] { db::save_layer(db, layer); });
  FAILPOINT("layer.after_row");
  layers_[chain] = layer;
  work->result = Unpacked{layer, false};
}

Task<void> LayerStore::wait_for_parent(std::string parent) {
  for (;;) {
    if (parent.empty()) co_return;
    const Layer* known = find(parent);
    if (known != nullptr && known->state == db::LayerState::ready) co_return;
    const auto busy = works_.find(parent);
    if (busy == works_.end()) throw Error(Errc::not_found, fmt::format("parent layer {} is not stored", parent));
    co_await wait_for(busy->second);
  }
}

Task<Unpacked> LayerStore::rebuild(std::string chain, std::shared_ptr<ByteSource> source) {
  const Layer* known = find(chain);
  if (known == nullptr) throw Error(Errc::not_found, "no such layer: " + chain);
  UnpackRequest request;
  request.parent = known->parent;
  request.diff_id = known->diff_id;
  request.blob_digest = known->blob_digest;
  request.source = std::move(source);
  co_return co_await unpack(std::move(request));
}

// ---- removing

LayerHold LayerStore::hold() { return LayerHold(this); }

std::set<std::string> LayerStore::keep_set(const std::set<std::string>& used) const {
  std::set<std::string> keep;
  auto keep_chain = [&](std::string chain) {
    while (!chain.empty() && keep.insert(chain).second) {
      const Layer* layer = find(chain);
      chain = layer != nullptr ? layer->parent : "";
    }
  };
  for (const std::string& chain : used) keep_chain(chain);
  for (const auto& [chain, count] : holds_) keep_chain(chain);
  for (const auto& [chain, work] : works_) {
    keep.insert(chain);
    keep_chain(work->parent);
  }
  for (const WorkPtr& work : nameless_) keep_chain(work->parent);
  return keep;
}

LayerRemoval LayerStore::begin_removal(const std::set<std::string>& used) {
  const std::set<std::string> keep = keep_set(used);
  std::map<std::string, int> above;
  for (const auto& [chain, layer] : layers_) ++above[layer.parent];
  std::vector<std::string> going;  // those on top first
  for (const auto& [chain, layer] : layers_) {
    if (above.contains(chain)) continue;
    for (std::string at = chain; !at.empty() && !keep.contains(at);) {
      const Layer* victim = find(at);
      if (victim == nullptr) break;
      going.push_back(at);
      at = victim->parent;
      if (const auto left = above.find(at); left == above.end() || --left->second > 0) break;
    }
  }
  LayerRemoval removal;
  for (const std::string& chain : going) {
    begin_work(chain);
    const auto it = layers_.find(chain);
    removal.bytes += it->second.size;
    removal.layers.push_back(std::move(it->second));
    layers_.erase(it);
  }
  return removal;
}

void LayerStore::cancel_removal(const LayerRemoval& removal) {
  for (const Layer& layer : removal.layers) {
    layers_[layer.chain_id] = layer;
    end_work(works_.at(layer.chain_id));
  }
}

Task<void> LayerStore::end_removal(LayerRemoval removal) {
  co_await async::shielded(end_removal_steps(std::move(removal)));
}

Task<void> LayerStore::end_removal_steps(LayerRemoval removal) {
  std::exception_ptr failure;
  for (const Layer& layer : removal.layers) {
    try {
      co_await lanes_.bulk.run(
          [paths = paths_, place = paths_.layer(digest_hex(layer.chain_id))] { discard_directory(paths, place); });
    } catch (const Error&) {
      if (!failure) failure = std::current_exception();
    }
    end_work(works_.at(layer.chain_id));
  }
  if (failure) std::rethrow_exception(failure);
}

Task<void> LayerStore::mark_missing(std::string chain) {
  if (const auto busy = works_.find(chain); busy != works_.end()) co_await wait_for(busy->second);
  if (find(chain) == nullptr) throw Error(Errc::not_found, "no such layer: " + chain);
  co_await async::shielded(mark_missing_steps(std::move(chain)));
}

Task<void> LayerStore::mark_missing_steps(std::string chain) {
  WorkPtr work = begin_work(chain);
  Layer& layer = layers_.at(chain);
  layer.state = db::LayerState::missing;
  std::exception_ptr failure;
  try {
    co_await lanes_.db.run([&db = db_, layer] { db::save_layer(db, layer); });
    FAILPOINT("layer.after_row_missing");
    co_await lanes_.bulk.run(
        [paths = paths_, place = paths_.layer(digest_hex(chain))] { discard_directory(paths, place); });
  } catch (const Error&) {
    failure = std::current_exception();
  }
  end_work(work);
  if (failure) std::rethrow_exception(failure);
}

// ---- queries

const Layer* LayerStore::find(const std::string& chain) const {
  const auto found = layers_.find(chain);
  return found == layers_.end() ? nullptr : &found->second;
}

bool LayerStore::is_complete(const std::string& chain) const {
  for (std::string at = chain; !at.empty();) {
    const Layer* layer = find(at);
    if (layer == nullptr || layer->state != db::LayerState::ready) return false;
    at = layer->parent;
  }
  return true;
}

std::vector<Layer> LayerStore::get_chain(const std::string& chain) const {
  std::vector<Layer> all;
  for (std::string at = chain; !at.empty();) {
    const Layer* layer = find(at);
    if (layer == nullptr) throw Error(Errc::not_found, fmt::format("layer {} is not stored", at));
    if (layer->state != db::LayerState::ready)
      throw Error(Errc::not_found, fmt::format("layer {} has to be unpacked again", at));
    all.push_back(*layer);
    at = layer->parent;
  }
  return all;
}

std::vector<Layer> LayerStore::list() const {
  std::vector<Layer> all;
  for (const auto& [chain, layer] : layers_) all.push_back(layer);
  return all;
}

std::int64_t LayerStore::chain_size(const std::string& chain) const {
  std::int64_t total = 0;
  for (const Layer* layer = find(chain); layer != nullptr; layer = find(layer->parent)) total += layer->size;
  return total;
}

std::int64_t LayerStore::total_size() const {
  std::int64_t total = 0;
  for (const auto& [chain, layer] : layers_)
    if (layer.state == db::LayerState::ready) total += layer.size;
  return total;
}

sys::Path LayerStore::directory(const std::string& chain) const { return paths_.layer(digest_hex(chain)) / "diff"; }

std::vector<sys::Path> LayerStore::lower_directories(const std::string& chain) const {
  std::vector<sys::Path> all;
  for (const Layer& layer : get_chain(chain)) all.push_back(directory(layer.chain_id));
  all.push_back(init_layer_directory(paths_.data_root));
  return all;
}

// ---- checking

namespace {

/// Empty if the directory is what the row says.
std::vector<std::string> examine_blocking(const sys::Path& place, const Layer& layer) {
  if (!directory_exists(place)) return {"its directory is missing"};
  const sys::Fd root = sys::open_file(place, O_RDONLY | O_DIRECTORY);
  std::vector<std::string> out;
  const TreeCount count = count_tree(root.get());
  if (count.entries != static_cast<std::uint64_t>(layer.entries))
    out.push_back(fmt::format("has {} entries instead of {}", count.entries, layer.entries));
  if (count.bytes != static_cast<std::uint64_t>(layer.size))
    out.push_back(fmt::format("has {} bytes instead of {}", count.bytes, layer.size));
  if (out.empty() && !layer.fingerprint.empty() && fingerprint_tree(root.get()) != layer.fingerprint)
    out.emplace_back("names, modes, owners, sizes or attributes are not what was unpacked");
  return out;
}

}  // namespace

std::vector<std::string> examine_layer_blocking(const sys::Paths& paths, const Layer& layer) {
  return examine_blocking(paths.layer(digest_hex(layer.chain_id)) / "diff", layer);
}

Task<std::vector<Problem>> LayerStore::verify_layer(std::string chain) {
  const Layer* known = find(chain);
  if (known == nullptr) throw Error(Errc::not_found, "no such layer: " + chain);
  const Layer layer = *known;
  std::vector<Problem> problems;
  if (layer.state != db::LayerState::ready) {
    problems.push_back({subject(chain), "its directory is missing", kUnpackAgain});
    co_return problems;
  }
  for (std::string& text :
       co_await lanes_.bulk.run([paths = paths_, layer] { return examine_layer_blocking(paths, layer); }))
    problems.push_back({subject(chain), std::move(text), kUnpackAgain});
  co_return problems;
}

Task<std::vector<Problem>> LayerStore::verify_contents(std::string chain, std::shared_ptr<ByteSource> source) {
  const Layer* known = find(chain);
  if (known == nullptr) throw Error(Errc::not_found, "no such layer: " + chain);
  std::vector<sys::Path> parents;
  for (const Layer& layer : get_chain(known->parent)) parents.push_back(directory(layer.chain_id));
  constexpr std::size_t kShown = 10;
  auto differences =
      co_await unpack_lane_.run([paths = paths_, source, parents, place = directory(chain), diff_id = known->diff_id] {
        const auto staged = stage_layer(paths, source, {});
        if (staged->diff_id != diff_id) throw Error(Errc::corrupted, "the blob does not hold this layer");
        settle_layer(*staged, parents);
        if (!directory_exists(place)) return std::vector<std::string>{"its directory is missing"};
        return compare_trees(sys::open_file(place, O_RDONLY | O_DIRECTORY).get(),
                             sys::open_file(staged->directory / "diff", O_RDONLY | O_DIRECTORY).get(), true, kShown);
      });
  std::vector<Problem> problems;
  for (std::string& text : differences) problems.push_back({subject(chain), std::move(text), kUnpackAgain});
  co_return problems;
}

Task<std::vector<Problem>> LayerStore::check() {
  auto names = co_await lanes_.bulk.run([paths = paths_] { return sys::list_directory(paths.layers()); });
  std::set<std::string> directories(names.begin(), names.end());
  std::vector<Problem> problems;
  for (const auto& [chain, work] : works_) directories.erase(digest_hex(chain));
  for (const auto& [chain, layer] : layers_) {
    const bool there = directories.erase(digest_hex(chain)) > 0;
    if (works_.contains(chain)) continue;
    if (!there || layer.state != db::LayerState::ready)
      problems.push_back({subject(chain), "its directory is missing", "unpack it again from its blob"});
    if (!layer.parent.empty() && find(layer.parent) == nullptr)
      problems.push_back({subject(chain), fmt::format("its parent {} is not stored", layer.parent), "pull the image"});
  }
  for (const std::string& name : directories)
    problems.push_back(
        {"directory " + paths_.layer(name).string(), "belongs to no layer", "removed at the next start"});
  co_return problems;
}

}  // namespace gantry::storage
