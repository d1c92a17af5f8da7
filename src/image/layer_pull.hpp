#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "image/context.hpp"
#include "image/image_config.hpp"
#include "image/manifest.hpp"
#include "image/progress.hpp"

namespace gantry::image {

/// Fetches the layers of one image and unpacks them while they arrive: several at a time, parents begun first.
/// The blobs and layers are held until this object goes. Made for one run().
class LayerPull : public std::enable_shared_from_this<LayerPull> {
 public:
  /// What clients are told: a pull's messages, or the one kind that a load has.
  enum class Wording { pull, load };
  LayerPull(Context& context, RepositoryPtr repository, ProgressPtr progress, Wording wording = Wording::pull);

  /// Resumes when every layer is unpacked and its blob stored. Throws the first failure, after the others were told to
  /// stop. Cancelling it cancels all. True if anything had to be fetched or unpacked.
  Task<bool> run(Manifest manifest, ImageConfig config);

  /// Keeps one more blob (manifest, config) for as long.
  void hold_blob(const std::string& digest) { blobs_.add(digest); }

 private:
  enum class Phase { waiting, downloading, extracting, done };
  struct Layer {
    Descriptor blob;
    std::string label;
    std::string diff_id;
    std::string chain;
    std::string parent;
    Phase phase = Phase::waiting;
    bool have_blob = false;
    bool have_layer = false;
    bool begun = false;  // its unpacking has begun (or was not needed)
    bool unpacked = false;
    int shown_retry = 0;
    DownloadLease download;
    std::shared_ptr<TailSource> tail;
    std::shared_ptr<std::atomic<std::int64_t>> consumed;  // bytes of a stored blob that unpacking has read
  };

  void say(const Layer& layer, const std::string& text);
  void report_layer(const Layer& layer);
  void plan(const Manifest& manifest, const ImageConfig& config);
  Task<void> guarded(std::shared_ptr<LayerPull> self, Task<void> task);
  Task<void> start_all();
  Task<void> settle();
  Task<void> process(std::size_t index);
  Task<void> await_download(std::size_t index, bool only_flowing);
  Task<void> finish_download(std::size_t index);
  Task<void> unpack(std::size_t index);
  Task<void> await_parent(std::size_t index, bool ready);
  Task<void> report();
  bool is_finished() const;

  Context& context_;
  RepositoryPtr repository_;
  ProgressPtr progress_;
  const Wording wording_;
  BlobHold blobs_;
  storage::LayerHold chains_;
  std::vector<Layer> layers_;
  int downloading_ = 0;
  std::exception_ptr failure_;
  async::Signal changed_;
};

}  // namespace gantry::image
