#include "image/layer_pull.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "image/digest.hpp"

namespace gantry::image {
namespace {

constexpr std::int64_t kEnoughToBegin = 256 << 10;  // bytes after which unpacking begins behind the download
constexpr int kUnpackTries = 4;
constexpr std::chrono::seconds kSettlePatience(5);

/// A blob from the store; counts what was read of it.
class CountedSource final : public storage::ByteSource {
 public:
  CountedSource(std::shared_ptr<storage::ByteSource> source, std::shared_ptr<std::atomic<std::int64_t>> count)
      : source_(std::move(source)), count_(std::move(count)) {}
  std::size_t read(char* to, std::size_t size) override {
    const std::size_t got = source_->read(to, size);
    *count_ += std::int64_t(got);
    return got;
  }
  void abort() noexcept override { source_->abort(); }

 private:
  const std::shared_ptr<storage::ByteSource> source_;
  const std::shared_ptr<std::atomic<std::int64_t>> count_;
};

}  // namespace

LayerPull::LayerPull(Context& context, RepositoryPtr repository, ProgressPtr progress, Wording wording)
    : context_(context),
      repository_(std::move(repository)),
      progress_(std::move(progress)),
      wording_(wording),
      blobs_(context.content().hold()),
      chains_(context.layers().hold()) {}

void LayerPull::plan(const Manifest& manifest, const ImageConfig& config) {
  if (manifest.layers.size() != config.diff_ids.size())
    throw Error(Errc::invalid_argument, fmt::format("invalid manifest, layers length mismatch: expected {}, got {}",
                                                    config.diff_ids.size(), manifest.layers.size()));
  const auto chains = chain_ids(config.diff_ids);
  for (std::size_t i = 0; i < chains.size(); ++i) {
    Layer layer;
    layer.blob = manifest.layers[i];
    layer.diff_id = config.diff_ids[i];
    layer.label = wording_ == Wording::load ? short_digest(layer.diff_id) : layer_label(layer.blob);
    layer.chain = chains[i];
    layer.parent = i == 0 ? std::string() : chains[i - 1];
    blobs_.add(layer.blob.digest);
    chains_.add(layer.chain);
    // Held from here on, so what is there now stays.
    const auto size = context_.content().find_size(layer.blob.digest);
    if (size && *size != layer.blob.size)
      throw Error(Errc::invalid_argument,
                  fmt::format("invalid manifest: layers[{}].size: blob {} has {} bytes instead of {}", i,
                              layer.blob.digest, *size, layer.blob.size));
    layer.have_blob = size.has_value();
    const storage::Layer* stored = context_.layers().find(layer.chain);
    layer.have_layer = stored != nullptr && stored->state == db::LayerState::ready;
    layer.begun = layer.unpacked = layer.have_layer;
    if (layer.have_blob && layer.have_layer) layer.phase = Phase::done;
    layers_.push_back(std::move(layer));
  }
}

Task<bool> LayerPull::run(Manifest manifest, ImageConfig config) {
  plan(manifest, config);
  for (const Layer& layer : layers_) say(layer, layer.phase == Phase::done ? "Already exists" : "Pulling fs layer");
  if (is_finished()) co_return false;

  // The group is this frame's: when the caller is cancelled, its destructor stops every task.
  async::TaskGroup tasks(context_.loop);
  auto self = shared_from_this();
  tasks.spawn("pull", guarded(self, start_all()));
  for (std::size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i].phase != Phase::done) tasks.spawn("pull layer", guarded(self, process(i)));
  tasks.spawn("pull progress", guarded(self, report()));
  while (!failure_ && !is_finished()) co_await changed_.wait();
  if (!failure_) co_return true;
  tasks.cancel();
  co_await tasks.join();
  co_await settle();
  std::rethrow_exception(failure_);
}

/// Waits, not for long, until what was being stored of this pull is stored or has been given up: what comes later would
/// stay.
Task<void> LayerPull::settle() {
  const auto end = std::chrono::steady_clock::now() + kSettlePatience;
  const auto left = [end] {
    return std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  };
  for (Layer& layer : layers_) {
    while (layer.download && layer.download->received && !layer.download->stored && !layer.download->failure &&
           left().count() > 0)
      (void)co_await layer.download->changed.wait_for(left());
    layer.download = DownloadLease();
    co_await context_.layers().await_work(layer.chain, left());
  }
}

/// Keeps the pull alive while `task` runs and passes its failure on.
Task<void> LayerPull::guarded(std::shared_ptr<LayerPull> self, Task<void> task) {
  try {
    co_await std::move(task);
  } catch (const std::exception&) {  // run() would wait for ever for a task that ended in any other way
    if (!self->failure_) self->failure_ = std::current_exception();
  }
  self->changed_.notify();
}

bool LayerPull::is_finished() const {
  return std::all_of(layers_.begin(), layers_.end(), [](const Layer& l) { return l.phase == Phase::done; });
}

/// Starts the downloads, lowest layer first, as many at a time as are allowed.
Task<void> LayerPull::start_all() {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    if (layer.have_blob || layer.phase == Phase::done) continue;
    if (downloading_ >= context_.max_downloads) say(layer, "Waiting");
    while (downloading_ >= context_.max_downloads) co_await changed_.wait();
    ++downloading_;
    layer.download = context_.downloads.join(repository_, layer.blob);
    layer.phase = Phase::downloading;
    changed_.notify();
  }
}

Task<void> LayerPull::await_download(std::size_t index, bool only_flowing) {
  Layer& layer = layers_[index];
  if (layer.have_blob) co_return;
  while (!layer.download) co_await changed_.wait();
  for (;;) {
    DownloadPtr download = layer.download.get();
    if (download->failure) {
      // It failed with another client's credentials: ours may do better.
      if (layer.download.is_owner()) std::rethrow_exception(download->failure);
      layer.download = context_.downloads.join(repository_, layer.blob);
      continue;
    }
    if (download->received) co_return;
    if (download->retry_in != layer.shown_retry) {
      layer.shown_retry = download->retry_in;
      if (layer.shown_retry > 0)
        say(layer, fmt::format("Retrying in {} second{}", layer.shown_retry, layer.shown_retry == 1 ? "" : "s"));
    }
    if (!only_flowing) {
      co_await download->changed.wait();
      continue;
    }
    if (download->file && download->file->written() >= kEnoughToBegin) co_return;
    (void)co_await download->changed.wait_for(std::chrono::milliseconds(20));
  }
}

Task<void> LayerPull::process(std::size_t index) {
  Layer& layer = layers_[index];
  async::TaskGroup downloads(context_.loop);
  if (!layer.have_layer) co_await await_download(index, true);
  if (!layer.have_layer && (layer.have_blob || !layer.download->received)) {
    // Unpacking and the rest of the download go on side by side.
    downloads.spawn("pull layer", guarded(shared_from_this(), finish_download(index)));
    co_await unpack(index);
  } else {
    co_await finish_download(index);
    if (!layer.have_layer) co_await unpack(index);
  }
  while (!layer.have_blob && !(layer.download && layer.download->stored)) {
    if (layer.download && layer.download->failure) std::rethrow_exception(layer.download->failure);
    if (layer.download) co_await layer.download->changed.wait();
    else co_await changed_.wait();
  }
  FAILPOINT("pull.after_layer");
  layer.phase = Phase::done;
  say(layer, "Pull complete");
  if (wording_ == Wording::load) progress_->update(layer.label, "Loading layer", layer.blob.size, layer.blob.size);
  changed_.notify();
}

/// Waits for the last byte and gives the place to the next download.
Task<void> LayerPull::finish_download(std::size_t index) {
  Layer& layer = layers_[index];
  if (layer.have_blob) co_return;
  co_await await_download(index, false);
  say(layer, "Verifying Checksum");
  say(layer, "Download complete");
  layer.phase = Phase::extracting;
  --downloading_;
  changed_.notify();
}

Task<void> LayerPull::await_parent(std::size_t index, bool ready) {
  if (index == 0) co_return;
  while (!(ready ? layers_[index - 1].unpacked : layers_[index - 1].begun)) co_await changed_.wait();
}

Task<void> LayerPull::unpack(std::size_t index) {
  Layer& layer = layers_[index];
  for (int tries = 1;; ++tries) {
    const bool again = tries > 1;
    if (again) co_await await_download(index, false);
    co_await await_parent(index, again);
    std::shared_ptr<storage::ByteSource> source;
    const bool stored = layer.have_blob || (layer.download && layer.download->stored);
    if (stored) {
      layer.consumed = std::make_shared<std::atomic<std::int64_t>>(0);
      source = std::make_shared<CountedSource>(co_await context_.content().open(layer.blob.digest), layer.consumed);
    } else {
      auto file = layer.download->file;
      layer.tail = co_await context_.lanes.quick.run([file] { return std::make_shared<TailSource>(file); });
      source = layer.tail;
    }
    storage::UnpackRequest request;
    request.parent = layer.parent;
    request.diff_id = layer.diff_id;
    request.blob_digest = layer.blob.digest;
    request.source = source;
    Task<storage::Unpacked> work = context_.layers().unpack(std::move(request));
    layer.begun = true;
    changed_.notify();
    try {
      (void)co_await std::move(work);
      break;
    } catch (const Error& e) {
      // A stalled download frees the thread; the layer is unpacked once the blob is complete. The same goes for a
      // layer whose parent was given up like that, and for work that another, cancelled pull had begun.
      const bool own = layer.tail && layer.tail->stalled();
      const bool parent = index > 0 && !layers_[index - 1].unpacked;
      if (tries >= kUnpackTries || !(own || parent || e.code() == Errc::cancelled)) throw;
    }
    layer.tail.reset();
  }
  layer.unpacked = true;
  changed_.notify();
}

/// A pull's status line; a load has none.
void LayerPull::say(const Layer& layer, const std::string& text) {
  if (wording_ == Wording::pull) progress_->status(text, layer.label);
}

void LayerPull::report_layer(const Layer& layer) {
  if (wording_ == Wording::load) {
    if (layer.consumed && layer.phase != Phase::done)
      progress_->update(layer.label, "Loading layer", *layer.consumed, layer.blob.size);
  } else if (layer.phase == Phase::downloading && layer.download && layer.download->file && layer.shown_retry == 0) {
    const std::int64_t written = layer.download->file->written();
    if (written > 0) progress_->update(layer.label, "Downloading", written, layer.blob.size);
  } else if (layer.phase == Phase::extracting && layer.tail && !layer.unpacked) {
    progress_->update(layer.label, "Extracting", layer.tail->consumed(), layer.blob.size);
  }
}

/// Shows figures ten times a second; statuses are sent when they change.
Task<void> LayerPull::report() {
  while (!is_finished()) {
    for (const Layer& layer : layers_) report_layer(layer);
    (void)co_await changed_.wait_for(std::chrono::milliseconds(100));
  }
}

}  // namespace gantry::image
