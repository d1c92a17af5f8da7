#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "async/task.hpp"
#include "base/filters.hpp"
#include "base/time.hpp"
#include "db/image_rows.hpp"
#include "events/bus.hpp"
#include "image/content_store.hpp"
#include "image/image_config.hpp"
#include "image/manifest.hpp"
#include "image/reference.hpp"
#include "storage/layer_store.hpp"

namespace gantry::image {

/// An image for one platform, as this machine holds it. A snapshot: it does not change when tags move.
struct Image : ImageConfig {
  std::string id;                  // digest of what was pulled or built: of the index, if it came as one
  Descriptor descriptor;           // of `id`
  Descriptor manifest;             // of the manifest for `platform`; the same as `descriptor` unless that is an index
  std::vector<Descriptor> layers;  // the blobs, lowest first; as many as diff_ids
  std::vector<std::string> chain_ids;     // the layers' names in storage::LayerStore, lowest first
  std::string config_digest;              // of the config blob
  std::vector<std::string> repo_tags;     // "alpine:3.20", sorted
  std::vector<std::string> repo_digests;  // "alpine@sha256:…", sorted
  std::int64_t content_size = 0;          // bytes of manifest, config and layer blobs
  std::int64_t unpacked_size = 0;         // bytes of the unpacked layers
  Timestamp last_tagged{};
  Timestamp added{};      // when it came here
  bool available = true;  // false: recover() found content missing or damaged that cannot be rebuilt here

  std::int64_t size() const noexcept { return content_size + unpacked_size; }
  /// The chain that a container's root file system stands on; empty for an image without layers.
  std::string top_chain() const { return chain_ids.empty() ? std::string() : chain_ids.back(); }
};
using ImagePtr = std::shared_ptr<const Image>;

/// What a container needs of an image. The engine tells, for conflicts and for what must not be swept.
struct ImageUser {
  std::string container_id;
  std::string image_id;   // Image::id
  std::string image_ref;  // as the container was created with
  std::string top_chain;  // Image::top_chain()
  bool running = false;   // running, paused or restarting
};
using ImageUsers = std::function<std::vector<ImageUser>()>;

/// One platform of an image, for `Manifests` in lists and inspect.
struct ManifestSummary {
  Descriptor descriptor;
  bool available = false;
  bool attestation = false;
  bool unknown = false;         // neither an image nor an attestation
  std::string attestation_for;  // digest
  Platform platform;
  std::int64_t content_size = 0;
  std::int64_t unpacked_size = 0;
  std::vector<std::string> containers;
};

/// A manifest of an index that is no image (provenance, an SBOM, an artifact) and whose blobs are all here.
struct Attachment {
  Descriptor descriptor;  // as the index has it
  Manifest manifest;
};

struct ImageSummary {
  ImagePtr image;
  std::int64_t containers = 0;
  std::int64_t shared_size = -1;
  std::vector<ManifestSummary> manifests;
};

struct ListOptions {
  Filters filters;
  bool all = false;
  bool shared_size = false;
  bool manifests = false;
};

struct HistoryItem {
  std::string id;  // "<missing>" except for the topmost
  Timestamp created{};
  std::string created_by;
  std::string comment;
  std::int64_t size = 0;
  std::vector<std::string> tags;
};

/// One line of the answer to a removal: either is empty.
struct Removed {
  std::string untagged;
  std::string deleted;
};

struct RemoveOptions {
  bool force = false;
  bool no_prune = false;
};

/// A statement about an image: one blob of an attestation.
struct Statement {
  Descriptor descriptor;
  std::string predicate_type;
  std::string text;  // JSON; only if it was asked for
};

struct PruneReport {
  std::vector<Removed> removed;
  std::int64_t space_reclaimed = 0;
};

struct Usage {
  std::int64_t total_size = 0;   // blobs and layers, each once
  std::int64_t layers_size = 0;  // unpacked layers only
  std::int64_t reclaimable = 0;  // by removing the images that no container uses
  std::int64_t images = 0;
  std::int64_t active = 0;  // images that a container uses
};

/// An image whose blobs are stored and whose layers are unpacked, to be made known.
struct NewImage {
  Descriptor descriptor;              // its digest becomes Image::id
  std::vector<Descriptor> manifests;  // of the platforms that are complete; the descriptor itself unless an index
  std::vector<Reference> names;       // tags to move here, and "name@digest" references
  std::string source_repository;      // canonical name it was pulled from; empty otherwise
};

/// Every image of this machine. Reads answer from memory; changes are a row first. Loop thread only.
class Images {
 public:
  Images(async::Lanes& lanes, db::Db& db, storage::LayerStore& layers, ContentStore& content, events::Bus& events);
  ~Images();
  Images(const Images&) = delete;
  Images& operator=(const Images&) = delete;

  void set_users(ImageUsers users) { users_ = std::move(users); }

  /// Loads the index and compares rows with blobs and layers. After LayerStore::recover() and ContentStore::recover().
  /// Returns what it found; never throws for one damaged image. Sweeps nothing: collect_garbage() does, once the
  /// containers are known, too.
  Task<std::vector<storage::Problem>> recover();

  /// The image that `ref` names: a name (":latest" is implied), a digest, an ID or the start of one (engine-api.md
  /// §5.2). Without a platform the one that fits this machine best. nullptr if there is none.
  /// Throws invalid_argument for what cannot be a reference; not_found for an ambiguous ID.
  ImagePtr find(const std::string& ref, const std::optional<Platform>& platform = {}) const;
  /// As find(). Throws not_found "No such image: alpine:latest", or that the platform is not there.
  ImagePtr get(const std::string& ref, const std::optional<Platform>& platform = {}) const;
  /// Newest first.
  std::vector<ImageSummary> list(const ListOptions& options) const;
  /// Every platform that the image's index names, and which of them are here.
  std::vector<ManifestSummary> list_manifests(const std::string& id) const;
  /// The platforms of an image that are here.
  std::vector<ImagePtr> list_variants(const std::string& id) const;
  /// What the image's index has beside images, as far as it is here.
  std::vector<Attachment> list_attachments(const std::string& id) const;
  /// The attestations of one platform's image. `types`: predicate types; empty for all.
  Task<std::vector<Statement>> statements(ImagePtr image, std::set<std::string> types, bool with_text);
  /// Newest first.
  std::vector<HistoryItem> history(const std::string& ref, const std::optional<Platform>& platform = {}) const;
  Usage usage() const;

  /// Makes sure that the image's layers can be mounted: rebuilds a lost or damaged one from its blob.
  /// Throws corrupted, naming the layer, if the blob is lost too.
  Task<void> ensure_unpacked(ImagePtr image);

  /// Gives the image one more name. `repository` may carry no tag or digest; `tag` empty: latest. Publishes `tag`.
  Task<void> tag(std::string ref, std::string repository, std::string tag);
  /// What `docker rmi` does: a name is untagged, the last name or an ID deletes. Throws conflict with Docker's texts.
  Task<std::vector<Removed>> remove(std::string ref, RemoveOptions options);
  /// Removes single platforms of an image, from every image that has the same manifest. The last one takes the image
  /// along. Throws invalid_argument without `force`; not_found; conflict if a running container uses one of them.
  Task<std::vector<Removed>> remove_platforms(std::string ref, std::vector<Platform> platforms, bool force);
  /// Filters: dangling (default true), label, label!, until.
  Task<PruneReport> prune(Filters filters);

  /// Makes a complete image known under its names, in one transaction. Hold its blobs and layers until this returns.
  /// Publishes nothing. Returns the image for this machine's platform, or for the first manifest.
  Task<ImagePtr> add(NewImage image);
  /// Removes blobs and layers that no image, container or hold needs. Returns the bytes freed.
  Task<std::int64_t> collect_garbage();
  /// The same after a start, when such blobs are of pulls that were interrupted: they stay for a day, to be resumed.
  Task<std::int64_t> collect_interrupted();

  /// Repositories that are known to hold a blob, for cross-repository mounts on push.
  std::vector<std::string> blob_sources(const std::string& digest) const;

  // For repairs.
  std::vector<std::string> list_ids() const;
  /// False if a document of the image could not be read when it was loaded.
  bool is_available(const std::string& id) const;
  /// What belongs to the image and is not stored, as far as what is stored tells.
  std::vector<Descriptor> missing_blobs(const std::string& id) const;
  /// The manifests of the platforms that are to be here.
  std::vector<Descriptor> wanted_manifests(const std::string& id) const;
  /// Where a blob, or an image's blobs, may be had: the repositories that they came from or that the image is named
  /// for.
  std::vector<std::string> repositories_of(const std::string& digest) const;
  std::vector<std::string> repositories_of_image(const std::string& id) const;
  /// Reads an image anew from its row and blobs. What cannot be read leaves it as it was.
  Task<void> reload(std::string id);
  /// Images of which something is lost that cannot be rebuilt here.
  std::int64_t damaged() const;
  /// How ensure_unpacked() gets a blob that is lost: true if it is stored again.
  using Refetch = std::function<Task<bool>(std::vector<std::string> repositories, Descriptor blob)>;
  void set_refetch(Refetch refetch) { refetch_ = std::move(refetch); }

  ContentStore& content() noexcept { return content_; }
  storage::LayerStore& layers() noexcept { return layers_; }

 private:
  struct Record;
  struct Found {
    Record* record = nullptr;
    std::optional<Reference> name;  // the name by which it was found; nullopt: by ID
  };
  Found resolve(const std::string& ref) const;
  ImagePtr choose(const Record& record, const std::optional<Platform>& platform) const;
  void refresh(Record& record);
  Task<std::unique_ptr<Record>> load_record(db::ImageRow row, std::vector<Descriptor> manifests);
  Task<void> require_blob(ImagePtr image, Descriptor blob);
  Task<void> unpack_layer(ImagePtr image, std::size_t index);
  Task<void> read_variant(Record* record, Descriptor manifest);
  void check_layers(const Image& image, std::vector<storage::Problem>& problems) const;
  void move_name(const std::string& name, Record& to);
  struct Doomed;
  Doomed plan_removal(const std::string& ref, const RemoveOptions& options) const;
  Doomed plan_platforms(const std::string& ref, const std::vector<Platform>& platforms) const;
  Doomed plan_prune(const Filters& filters) const;
  Task<PruneReport> carry_out(Doomed doomed, async::Mutex::Guard lock);
  Task<std::int64_t> remove_content(storage::LayerRemoval layers, BlobRemoval blobs, bool resumable);
  Task<std::int64_t> sweep(bool resumable);
  std::vector<Removed> forget(const Doomed& doomed);
  Task<void> read_attachments(Record* record);
  std::set<std::string> used_blobs(const Doomed& doomed) const;
  std::set<std::string> used_chains(const Doomed& doomed) const;
  std::vector<ImageUser> users_of(const std::string& id) const;
  std::vector<ManifestSummary> summarize(const Record& record) const;
  ImagePtr first_choice(const Record& record) const;
  void publish(const std::string& action, const std::string& actor, const std::string& name, const Image* image) const;

  async::Lanes& lanes_;
  db::Db& db_;
  storage::LayerStore& layers_;
  ContentStore& content_;
  events::Bus& events_;
  ImageUsers users_;
  Refetch refetch_;
  async::Mutex writes_;                                     // orders changes of the index; reads take no lock
  std::map<std::string, std::unique_ptr<Record>> records_;  // by Image::id
  std::map<std::string, std::string> names_;                // canonical "name:tag" or "name@digest" to Image::id
  std::map<std::string, std::set<std::string>> sources_;    // blob digest to canonical repositories
};

}  // namespace gantry::image
