#include "image/build_result.hpp"

#include <algorithm>

#include <fcntl.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "image/digest.hpp"
#include "image/gzip.hpp"
#include "storage/decompress.hpp"
#include "storage/hash.hpp"
#include "storage/pack.hpp"

namespace gantry::image {
namespace {

struct Spooled {
  std::shared_ptr<Ingest> ingest;
  std::string diff_id;
};

/// A layer's directory as a compressed tar, hashed before and after the compression.
Spooled spool_blocking(ContentStore& content, const sys::Path& directory, const std::atomic<bool>* give_up) {
  Spooled out{content.begin(), {}};
  storage::Sha256 hash;
  GzipWriter gzip([&](std::string_view bytes) { out.ingest->write(bytes); });
  storage::PackOptions options;
  options.mode = storage::PackMode::layer;
  const sys::Fd root = sys::open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  storage::pack(root.get(), options, [&](std::string_view bytes) {
    if (give_up != nullptr && *give_up) throw Error(Errc::cancelled, "context canceled");
    hash.update(bytes);
    gzip.write(bytes);
  });
  gzip.finish();
  out.diff_id = hash.digest();
  (void)out.ingest->finish();
  return out;
}

std::string_view layer_type(std::string_view first_bytes) {
  switch (storage::detect_compression(first_bytes)) {
    case storage::Compression::gzip: return kOciLayerGzip;
    case storage::Compression::zstd: return kOciLayerZstd;
    default: return kOciLayer;
  }
}

/// The blob as a layer of a manifest; its first bytes tell how it is compressed.
Task<Descriptor> describe_blob(Context& context, std::string digest) {
  std::shared_ptr<storage::ByteSource> source = co_await context.content().open(digest);
  Descriptor out;
  out.digest = digest;
  out.size = context.content().find_size(digest).value_or(0);
  out.media_type = co_await context.lanes.quick.run([source] {
    char first[8];
    return std::string(layer_type({first, source->read(first, sizeof first)}));
  });
  co_return out;
}

std::vector<Reference> read_names(const std::vector<std::string>& names) {
  std::vector<Reference> out;
  for (const std::string& name : names) {
    const Reference reference = parse_reference(name);
    if (!reference.digest.empty())
      throw Error(Errc::invalid_argument, fmt::format("refusing to create a tag with a digest reference: {}", name));
    if (std::ranges::find(out, reference.with_default_tag()) == out.end()) out.push_back(reference.with_default_tag());
  }
  return out;
}

}  // namespace

Task<PackedLayer> pack_layer(Context& context, sys::Path directory, std::shared_ptr<const std::atomic<bool>> give_up) {
  PackedLayer out{context.content().hold(), {}, {}};
  Spooled spooled = co_await context.archives.run(
      [&content = context.content(), directory, give_up] { return spool_blocking(content, directory, give_up.get()); });
  out.diff_id = spooled.diff_id;
  out.blob.media_type = kOciLayerGzip;
  out.blob.digest = spooled.ingest->finish();
  out.blob.size = spooled.ingest->size();
  out.hold.add(out.blob.digest);
  if (!context.content().contains(out.blob.digest))
    (void)co_await context.content().commit(spooled.ingest, out.blob.digest, out.blob.size);
  FAILPOINT("build.layer.after_blob");
  co_return out;
}

Task<std::optional<Descriptor>> find_layer_blob(Context& context, std::string chain_id) {
  const storage::Layer* layer = context.layers().find(chain_id);
  if (layer == nullptr) co_return std::nullopt;
  std::string digest = layer->blob_digest;
  if (digest.empty() || !context.content().contains(digest)) {
    // The image that the layer came with is gone, but another one has the same layer in a blob of its own.
    digest.clear();
    for (const std::string& id : context.images.list_ids())
      for (const ImagePtr& image : context.images.list_variants(id))
        for (std::size_t i = 0; digest.empty() && i < image->chain_ids.size() && i < image->layers.size(); ++i)
          if (image->chain_ids[i] == chain_id && context.content().contains(image->layers[i].digest))
            digest = image->layers[i].digest;
  }
  if (digest.empty()) co_return std::nullopt;
  co_return co_await describe_blob(context, digest);
}

Task<AssembledImage> assemble(Context& context, AssembleRequest request) {
  const ImageConfig config = parse_image_config(request.config);
  const std::vector<Reference> names = read_names(request.names);
  const std::vector<std::string> chains = chain_ids(config.diff_ids);
  if (chains != request.chains) throw Error(Errc::invalid_argument, "rootfs.diff_ids are not those of the layers");
  if (chains.size() > kMaxLayers) throw Error(Errc::invalid_argument, "max depth exceeded");
  BlobHold blobs = context.content().hold();
  storage::LayerHold layers = context.layers().hold();
  if (!chains.empty()) layers.add(chains.back());
  Manifest manifest;
  manifest.media_type = kOciManifest;
  for (const std::string& chain : chains) {
    if (!context.layers().is_complete(chain))
      throw Error(Errc::not_found, fmt::format("layer {} is not stored", chain));
    std::optional<Descriptor> blob = co_await find_layer_blob(context, chain);
    const auto other = request.blobs.find(chain);
    if (!blob && other != request.blobs.end() && context.content().contains(other->second))
      blob = co_await describe_blob(context, other->second);
    if (!blob) throw Error(Errc::not_found, fmt::format("the content of layer {} is not stored", chain));
    blobs.add(blob->digest);
    manifest.layers.push_back(std::move(*blob));
  }
  AssembledImage out;
  manifest.config.media_type = kOciConfig;
  manifest.config.digest = out.config_digest = digest_of(request.config);
  manifest.config.size = std::int64_t(request.config.size());
  blobs.add(manifest.config.digest);
  (void)co_await context.content().put(request.config);
  out.manifest = render_manifest(manifest);
  NewImage image;
  image.descriptor.media_type = manifest.media_type;
  image.descriptor.digest = digest_of(out.manifest);
  image.descriptor.size = std::int64_t(out.manifest.size());
  blobs.add(image.descriptor.digest);
  (void)co_await context.content().put(out.manifest);
  FAILPOINT("build.image.before_commit");
  image.manifests.push_back(image.descriptor);
  image.names = names;
  out.image = co_await context.images.add(std::move(image));
  context.publish("create", out.image->id, out.image->id, out.image.get());
  for (const Reference& name : names) {
    out.names.push_back(name.canonical());
    context.publish("tag", out.image->id, name.familiar(), out.image.get());
  }
  co_return out;
}

}  // namespace gantry::image
