#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "async/task.hpp"
#include "async/task_group.hpp"
#include "config/config.hpp"
#include "image/auth.hpp"
#include "image/images.hpp"
#include "image/progress.hpp"
#include "storage/byte_source.hpp"

namespace gantry::image {

struct Context;
struct Damage;
struct RepairReport;
struct RepairRequest;
using DamageSink = std::function<void(const Damage&)>;

struct PullRequest {
  std::string image;  // as typed; may carry tag and digest
  std::string tag;    // tag or digest; both empty: every tag of the repository
  std::optional<Platform> platform;
  RegistryAuth auth;
};

struct PushRequest {
  std::string image;
  std::string tag;  // empty: the image's tag, or every tag of the repository
  std::optional<Platform> platform;
  RegistryAuth auth;
};

struct LoadRequest {
  std::shared_ptr<storage::ByteSource> archive;
  std::vector<Platform> platforms;  // empty: what fits this machine
  bool quiet = true;
};

struct ImportRequest {
  std::shared_ptr<storage::ByteSource> archive;  // nullptr: it is at `url`
  std::string url;                               // http or https
  std::string repository;                        // empty: no name
  std::string tag;
  std::string message;
  std::vector<std::string> changes;  // Dockerfile instructions
  std::optional<Platform> platform;
  std::string origin = "-";  // for the comment "Imported from -"
};

struct SaveRequest {
  std::vector<std::string> names;
  std::vector<Platform> platforms;
};

/// A layer on top of an image, for commit. The stream is an uncompressed tar in layer form.
struct CommitRequest {
  ImagePtr base;                               // nullptr: none
  std::shared_ptr<storage::ByteSource> layer;  // nullptr: only the config changes
  ImageConfig config;  // complete, but diff_ids and the last history entry's emptiness are filled in here
  std::vector<Reference> names;
};

/// A layer's directory as a blob. The hold keeps that.
struct PackedLayer {
  BlobHold hold;
  std::string diff_id;
  Descriptor blob;
};

/// An image whose layers are all here.
struct AssembleRequest {
  std::string config;                        // the config blob; its rootfs.diff_ids name the layers
  std::vector<std::string> names;            // as users type them; may be empty
  std::vector<std::string> chains;           // must be those of the config
  std::map<std::string, std::string> blobs;  // of chains whose own blob may be gone: where else their content is
};
struct AssembledImage {
  ImagePtr image;
  std::string config_digest;
  std::string manifest;            // its bytes
  std::vector<std::string> names;  // in full
};

struct DistributionInfo {
  Descriptor descriptor;
  std::vector<Platform> platforms;
};

struct LoginResult {
  std::string status;          // "Login Succeeded"
  std::string identity_token;  // empty: the registry issues none
};

struct SearchResult {
  std::string name;
  std::string description;
  std::int64_t stars = 0;
  bool official = false;
};

/// Moves images in and out. Each verb makes its images known at its end, in one step; when it fails or is cancelled,
/// what it had stored is unreferenced and swept. Loop thread.
class Transfers {
 public:
  Transfers(boost::asio::any_io_executor loop, async::Lanes& lanes, Images& images, events::Bus& events,
            const sys::Paths& paths, const config::Config& config);
  ~Transfers();
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  /// For a reload: what is in flight keeps its settings.
  void configure(const config::Config& config);

  /// Fetches an image and unpacks its layers while they arrive. Throws with Docker's texts (engine-api.md §3.10);
  /// cancelling it stops what no other pull waits for.
  Task<void> pull(PullRequest request, ProgressPtr progress);
  Task<void> push(PushRequest request, ProgressPtr progress);
  /// Reads an archive of `docker save` (any age) or an OCI layout, whole or its layers compressed or not.
  Task<void> load(LoadRequest request, ProgressPtr progress);
  /// Makes an image of one layer out of a root file system's tar. Returns its ID.
  Task<std::string> import(ImportRequest request, ProgressPtr progress);
  /// Makes an image out of a base and one more layer. Returns it.
  Task<ImagePtr> commit(CommitRequest request);

  /// Packs a directory, which looks as an overlay's upper layer does and does not change meanwhile, to a compressed tar
  /// and stores that. `give_up`: when it becomes true, cancelled is thrown.
  Task<PackedLayer> pack_layer(sys::Path directory, std::shared_ptr<const std::atomic<bool>> give_up);
  /// The compressed tar of a layer that is here, if that is kept.
  Task<std::optional<Descriptor>> find_layer_blob(std::string chain_id);
  /// Makes an image of layers that are here, under these names, and publishes `create` and `tag`. Throws not_found if
  /// a layer or its blob is not stored.
  Task<AssembledImage> assemble(AssembleRequest request);

  /// What `docker save` writes. Resolves the names at once, so not_found comes before the first byte. The stream is
  /// produced as it is read; memory stays flat.
  Task<std::shared_ptr<storage::ByteChannel>> save(SaveRequest request);

  /// See repair.hpp.
  Task<RepairReport> repair(RepairRequest request, DamageSink sink);

  Task<DistributionInfo> inspect_remote(std::string image, RegistryAuth auth);
  /// Asks the registry whether it accepts the credentials. Throws unauthorized.
  Task<LoginResult> log_in(RegistryAuth auth);
  /// Asks the index (Docker Hub's, or the one that the term begins with). `limit` 0: 25.
  Task<std::vector<SearchResult>> search(std::string term, std::int64_t limit, RegistryAuth auth);

  Context& context_for_test() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::image
