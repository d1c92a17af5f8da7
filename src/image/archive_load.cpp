#include "image/archive_load.hpp"

#include <unistd.h>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "image/archive.hpp"
#include "image/digest.hpp"
#include "image/layer_pull.hpp"
#include "json/json.hpp"
#include "storage/decompress.hpp"

namespace gantry::image {
namespace {

constexpr std::size_t kMaxImages = 1024;
constexpr std::string_view kNameAnnotation = "io.containerd.image.name";
constexpr std::string_view kRefAnnotation = "org.opencontainers.image.ref.name";

/// An image of the archive: where its documents are, and what it is to be called.
struct Found {
  Descriptor root;
  std::vector<Reference> names;
};

/// A row of manifest.json.
struct SavedImage {
  std::string config;
  std::vector<std::string> tags;
  std::vector<std::string> layers;
};

std::vector<std::string> get_strings(const json::Object& object, std::string_view key) {
  std::vector<std::string> out;
  const json::Value* list = object.if_contains(key);
  if (list == nullptr || list->is_null()) return out;
  if (!list->is_array() || list->get_array().size() > kMaxImages)
    throw Error(Errc::invalid_argument, fmt::format("invalid archive: manifest.json: {}", key));
  for (const json::Value& item : list->get_array()) {
    if (!item.is_string()) throw Error(Errc::invalid_argument, fmt::format("invalid archive: manifest.json: {}", key));
    out.emplace_back(item.get_string());
  }
  return out;
}

std::vector<SavedImage> parse_saved(const std::string& text) {
  const json::Value value = with_context("manifest.json", [&] { return json::parse(text); });
  if (!value.is_array() || value.get_array().size() > kMaxImages)
    throw Error(Errc::invalid_argument, "invalid archive: manifest.json is not a list of images");
  std::vector<SavedImage> out;
  for (const json::Value& item : value.get_array()) {
    if (!item.is_object())
      throw Error(Errc::invalid_argument, "invalid archive: manifest.json is not a list of images");
    const json::Object& object = item.get_object();
    const json::Value* config = object.if_contains("Config");
    if (config == nullptr || !config->is_string())
      throw Error(Errc::invalid_argument, "invalid archive: manifest.json: Config");
    out.push_back({std::string(config->get_string()), get_strings(object, "RepoTags"), get_strings(object, "Layers")});
  }
  return out;
}

/// The name that an OCI layout gives an image; a bare tag is not one.
std::optional<Reference> name_of(const Descriptor& d) {
  for (const std::string_view key : {kNameAnnotation, kRefAnnotation}) {
    const auto it = d.annotations.find(std::string(key));
    if (it == d.annotations.end()) continue;
    const bool full = it->second.find_first_of("/:") != std::string::npos;
    if (key == kRefAnnotation && !full) continue;
    if (auto ref = try_parse_reference(it->second)) return ref->with_default_tag();
  }
  return std::nullopt;
}

std::string_view media_type_of(storage::Compression compression) {
  switch (compression) {
    case storage::Compression::gzip: return kOciLayerGzip;
    case storage::Compression::zstd: return kOciLayerZstd;
    default: return kOciLayer;
  }
}

class Load {
 public:
  Load(Context& context, LoadRequest request, ProgressPtr progress)
      : context_(context),
        request_(std::move(request)),
        progress_(std::move(progress)),
        hold_(context.content().hold()) {}

  Task<void> run() {
    archive_ = co_await read_archive();
    FAILPOINT("load.after_spool");
    std::vector<Found> found;
    if (archive_->find("oci-layout") != nullptr && archive_->find("index.json") != nullptr) found = co_await find_oci();
    else if (archive_->find("manifest.json") != nullptr) found = co_await build_saved();
    else throw Error(Errc::invalid_argument, "invalid archive: does not contain a manifest.json");
    for (Found& image : found) co_await add(std::move(image));
  }

 private:
  Task<std::shared_ptr<Archive>> read_archive() {
    // When the client goes away the source is aborted, and with it the thread that reads from it.
    struct Abort {
      std::shared_ptr<storage::ByteSource> source;
      ~Abort() {
        if (source) source->abort();
      }
    } abort{request_.archive};
    auto archive = co_await context_.archives.run([&content = context_.content(), source = request_.archive] {
      return std::make_shared<Archive>(Archive::read_blocking(content, source));
    });
    abort.source.reset();
    co_return archive;
  }

  Task<std::string> read_text(const Archive::File& file, std::size_t limit) {
    co_return co_await context_.lanes.quick.run([file, limit] { return Archive::read_text_blocking(file, limit); });
  }

  /// A file of the archive is to become a blob: with the next flush().
  void keep(const Archive::File& file) {
    hold_.add(file.digest);
    const auto same = [&](const Incoming& in) { return in.digest == file.digest; };
    if (context_.content().contains(file.digest) || std::any_of(incoming_.begin(), incoming_.end(), same)) return;
    incoming_.push_back({file.data, file.digest, file.size});
  }

  /// Stores what is to be kept, all at once: each transaction costs a write to the disk.
  Task<void> flush() {
    if (incoming_.empty()) co_return;
    (void)co_await context_.content().commit(std::exchange(incoming_, {}));
    FAILPOINT("load.after_blobs");
  }

  /// The file of a descriptor; throws unless it is there with the announced size.
  const Archive::File& get(const Descriptor& d) const {
    (void)digest_hex(d.digest);
    const Archive::File* file = archive_->find_digest(d.digest);
    if (file == nullptr)
      throw Error(Errc::invalid_argument, fmt::format("invalid archive: content {} not found in it", d.digest));
    if (file->size != d.size)
      throw Error(Errc::invalid_argument,
                  fmt::format("invalid archive: content {} has {} bytes instead of {}", d.digest, file->size, d.size));
    return *file;
  }

  Task<std::vector<Found>> find_oci() {
    const Index index = parse_index(co_await read_text(archive_->get("index.json"), kMaxManifestBytes));
    std::vector<Found> out;
    for (const Descriptor& d : index.manifests) {
      if (!is_index_type(d.media_type) && !is_manifest_type(d.media_type)) continue;
      if (is_attestation(d)) continue;
      auto same = std::find_if(out.begin(), out.end(), [&](const Found& f) { return f.root.digest == d.digest; });
      if (same == out.end()) {
        Found found;
        found.root = d;
        same = out.insert(out.end(), std::move(found));
      }
      if (auto name = name_of(d)) same->names.push_back(std::move(*name));
    }
    if (out.empty()) throw Error(Errc::invalid_argument, "invalid archive: index.json names no image");
    co_return out;
  }

  /// Makes manifests for the images of manifest.json, which knows only configs and layers.
  Task<std::vector<Found>> build_saved() {
    std::vector<Found> out;
    for (const SavedImage& saved : parse_saved(co_await read_text(archive_->get("manifest.json"), kMaxConfigBytes))) {
      const Archive::File config = archive_->get(saved.config);
      const ImageConfig parsed = parse_image_config(co_await read_text(config, kMaxConfigBytes));
      if (parsed.diff_ids.size() != saved.layers.size())
        throw Error(Errc::invalid_argument, fmt::format("invalid manifest, layers length mismatch: expected {}, got {}",
                                                        parsed.diff_ids.size(), saved.layers.size()));
      Manifest manifest;
      manifest.media_type = kOciManifest;
      manifest.config.media_type = kOciConfig;
      manifest.config.digest = config.digest;
      manifest.config.size = config.size;
      for (std::size_t i = 0; i < saved.layers.size(); ++i) {
        const Archive::File file = archive_->get(saved.layers[i]);
        const std::string head = co_await context_.lanes.quick.run([file] {
          char bytes[6] = {};
          const ssize_t got = ::pread(file.data->open_reader().get(), bytes, sizeof bytes, 0);
          return std::string(bytes, got > 0 ? std::size_t(got) : 0);
        });
        const auto compression = storage::detect_compression(head);
        if (compression == storage::Compression::none && file.digest != parsed.diff_ids[i])
          throw Error(Errc::invalid_argument, fmt::format("invalid diffID for layer {}: expected {}, got {}", i,
                                                          quote(parsed.diff_ids[i]), quote(file.digest)));
        Descriptor layer;
        layer.media_type = media_type_of(compression);
        layer.digest = file.digest;
        layer.size = file.size;
        manifest.layers.push_back(std::move(layer));
      }
      const std::string text = render_manifest(manifest);
      Found found;
      found.root.media_type = manifest.media_type;
      found.root.digest = digest_of(text);
      found.root.size = std::int64_t(text.size());
      made_[found.root.digest] = text;
      for (const std::string& tag : saved.tags) {
        const Reference name = parse_reference(tag);
        if (name.tag.empty()) throw Error(Errc::invalid_argument, fmt::format("invalid tag {}", quote(tag)));
        found.names.push_back(name);
      }
      out.push_back(std::move(found));
    }
    co_return out;
  }

  Task<std::string> document(Descriptor d) {
    if (context_.content().contains(d.digest)) {
      hold_.add(d.digest);
      co_return co_await context_.content().read(d.digest, kMaxManifestBytes);
    }
    Archive::File file;
    std::string text;
    if (const auto made = made_.find(d.digest); made != made_.end()) {
      text = made->second;
      file.data = co_await context_.lanes.quick.run([&content = context_.content(), text] {
        auto data = content.begin();
        data->write(text);
        return data;
      });
      file.digest = d.digest;
      file.size = d.size;
    } else {
      file = get(d);
      text = co_await read_text(file, kMaxManifestBytes);
      (void)parse_document(text, d.media_type);
    }
    keep(file);
    co_return text;
  }

  bool is_here(const Descriptor& d) const {
    return context_.content().contains(d.digest) || made_.contains(d.digest) ||
           archive_->find_digest(d.digest) != nullptr;
  }

  bool is_wanted(const Platform& platform) const {
    if (request_.platforms.empty()) return true;
    return std::any_of(request_.platforms.begin(), request_.platforms.end(),
                       [&](const Platform& p) { return PlatformMatcher::only(p).matches(platform); });
  }

  /// Stores the content of one platform if the archive has all of it. False if it does not.
  Task<bool> keep_manifest(Descriptor d, std::vector<Descriptor>* complete) {
    if (!is_here(d)) co_return false;
    const std::string text = co_await document(d);
    const Manifest manifest = parse_manifest(text, d.media_type);
    for (const Descriptor& layer : manifest.layers)
      if (!is_here(layer)) co_return false;
    if (!is_here(manifest.config)) co_return false;
    if (!context_.content().contains(manifest.config.digest)) {
      (void)parse_image_config(co_await read_text(get(manifest.config), kMaxConfigBytes));
      keep(get(manifest.config));
    }
    hold_.add(manifest.config.digest);
    for (const Descriptor& layer : manifest.layers) {
      hold_.add(layer.digest);
      if (!context_.content().contains(layer.digest)) keep(get(layer));
    }
    d.media_type = manifest.media_type;
    d.size = std::int64_t(text.size());
    complete->push_back(std::move(d));
    co_return true;
  }

  /// Stores what an index has beside images, if the archive has all of it: attestations of images that are kept, and
  /// whatever else is no image.
  Task<void> keep_attachment(Descriptor d, const std::vector<Descriptor>& images) {
    const auto is = [&](const std::string& digest) {
      return std::any_of(images.begin(), images.end(), [&](const Descriptor& i) { return i.digest == digest; });
    };
    if (!is_manifest_type(d.media_type) || is(d.digest) || !is_here(d)) co_return;
    const std::string subject = attestation_subject(d);
    if (!subject.empty() && !is(subject)) co_return;
    std::string text;
    if (context_.content().contains(d.digest)) text = co_await context_.content().read(d.digest, kMaxManifestBytes);
    else text = co_await read_text(get(d), kMaxManifestBytes);
    const Manifest manifest = parse_any_manifest(text, d.media_type);
    if (!is_attestation(d) && is_image(manifest)) co_return;  // another platform's
    std::vector<Descriptor> blobs = manifest.layers;
    blobs.push_back(manifest.config);
    if (!std::all_of(blobs.begin(), blobs.end(), [&](const Descriptor& b) { return is_here(b); })) co_return;
    blobs.push_back(d);
    for (const Descriptor& blob : blobs) {
      hold_.add(blob.digest);
      if (!context_.content().contains(blob.digest)) keep(get(blob));
    }
  }

  Task<void> unpack(Descriptor d) {
    co_await flush();
    const Manifest manifest =
        parse_manifest(co_await context_.content().read(d.digest, kMaxManifestBytes), d.media_type);
    const ImageConfig config =
        parse_image_config(co_await context_.content().read(manifest.config.digest, kMaxConfigBytes));
    auto layers = std::make_shared<LayerPull>(
        context_, nullptr, request_.quiet ? std::make_shared<Progress>() : progress_, LayerPull::Wording::load);
    (void)co_await layers->run(manifest, config);
    unpacked_.push_back(std::move(layers));  // it holds the layers
  }

  Task<void> add(Found found) {
    NewImage image;
    const std::string text = co_await document(found.root);
    const Document parsed = parse_document(text, found.root.media_type);
    image.descriptor.media_type = std::visit([](const auto& d) { return d.media_type; }, parsed);
    image.descriptor.digest = found.root.digest;
    image.descriptor.size = std::int64_t(text.size());
    image.names = found.names;
    if (const auto* index = std::get_if<Index>(&parsed)) {
      for (const Descriptor& d : index->manifests)
        if (is_manifest_type(d.media_type) && !is_attestation(d) && (!d.platform || is_wanted(*d.platform)))
          (void)co_await keep_manifest(d, &image.manifests);
      for (const Descriptor& d : index->manifests) co_await keep_attachment(d, image.manifests);
      if (image.manifests.empty())
        throw Error(Errc::invalid_argument, "invalid archive: it has no complete image for the wanted platforms");
      Index present;
      present.manifests = image.manifests;
      const auto fitting = select_manifests(present, PlatformMatcher::host());
      co_await unpack(fitting.empty() ? image.manifests.front() : fitting.front());
    } else {
      if (!co_await keep_manifest(image.descriptor, &image.manifests))
        throw Error(Errc::invalid_argument,
                    fmt::format("invalid archive: content of image {} is missing", found.root.digest));
      co_await unpack(image.manifests.front());
    }
    FAILPOINT("load.before_commit");
    const ImagePtr added = co_await context_.images.add(std::move(image));
    if (found.names.empty()) progress_->stream(fmt::format("Loaded image ID: {}\n", added->id));
    for (const Reference& name : found.names) {
      context_.publish("load", added->id, added->id, added.get());
      progress_->stream(fmt::format("Loaded image: {}\n", name.familiar()));
    }
    if (found.names.empty()) context_.publish("load", added->id, added->id, added.get());
  }

  Context& context_;
  LoadRequest request_;
  ProgressPtr progress_;
  BlobHold hold_;
  std::shared_ptr<Archive> archive_;
  std::map<std::string, std::string> made_;  // manifests of ours, by digest
  std::vector<Incoming> incoming_;
  std::vector<std::shared_ptr<LayerPull>> unpacked_;
};

Task<void> load_all(Context& context, LoadRequest request, ProgressPtr progress) {
  Load load(context, std::move(request), std::move(progress));
  co_await load.run();
}

}  // namespace

Task<void> load(Context& context, LoadRequest request, ProgressPtr progress) {
  co_await swept_if_it_fails(context, load_all(context, std::move(request), std::move(progress)));
}

}  // namespace gantry::image
