#include "image/build_image.hpp"

#include <atomic>
#include <cerrno>

#include <unistd.h>

#include <fmt/format.h>
#include <boost/json/object.hpp>

#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "image/config_changes.hpp"
#include "image/digest.hpp"
#include "image/gzip.hpp"
#include "image/registry_wire.hpp"
#include "storage/decompress.hpp"

namespace gantry::image {
namespace {

struct NewLayer {
  Descriptor blob;
  storage::Layer layer;
};

/// Bytes that were looked at are delivered again.
class Rewound final : public storage::ByteSource {
 public:
  Rewound(std::string head, std::shared_ptr<storage::ByteSource> rest)
      : head_(std::move(head)), rest_(std::move(rest)) {}
  std::size_t read(char* to, std::size_t size) override {
    if (at_ == head_.size()) return rest_->read(to, size);
    const std::size_t n = std::min(size, head_.size() - at_);
    head_.copy(to, n, at_);
    at_ += n;
    return n;
  }
  void abort() noexcept override { rest_->abort(); }

 private:
  const std::string head_;
  std::size_t at_ = 0;
  const std::shared_ptr<storage::ByteSource> rest_;
};

/// Reads a received file from its beginning, and keeps it meanwhile.
std::shared_ptr<storage::ByteSource> make_ingest_source(std::shared_ptr<Ingest> ingest) {
  class Source final : public storage::ByteSource {
   public:
    explicit Source(std::shared_ptr<Ingest> kept) : kept_(std::move(kept)), fd_(kept_->open_reader()) {}
    std::size_t read(char* to, std::size_t size) override {
      const ssize_t got = ::pread(fd_.get(), to, size, offset_);
      if (got < 0) throw Error::from_errno(errno, "read the downloaded archive");
      offset_ += got;
      return static_cast<std::size_t>(got);
    }

   private:
    const std::shared_ptr<Ingest> kept_;
    const sys::Fd fd_;
    off_t offset_ = 0;
  };
  return std::make_shared<Source>(std::move(ingest));
}

Task<void> report_download(ProgressPtr progress, std::shared_ptr<std::atomic<std::int64_t>> received) {
  for (;;) {
    co_await async::sleep_for(std::chrono::milliseconds(200));
    if (*received > 0) progress->update("", "Importing", *received, 0);
  }
}

/// Spools a tar to a blob: as it is if it is compressed in a way that layers may be, else as gzip.
std::string_view spool_blocking(Ingest& ingest, std::shared_ptr<storage::ByteSource> source) {
  std::string head;
  std::string buffer(256 << 10, '\0');
  while (head.size() < 6) {
    const std::size_t got = source->read(buffer.data(), buffer.size());
    if (got == 0) break;
    head.append(buffer.data(), got);
  }
  const auto compression = storage::detect_compression(head);
  source = std::make_shared<Rewound>(std::move(head), std::move(source));
  const auto copy = [&](const storage::ByteSink& sink) {
    for (std::size_t got; (got = source->read(buffer.data(), buffer.size())) > 0;) sink({buffer.data(), got});
  };
  const storage::ByteSink to_file = [&](std::string_view bytes) { ingest.write(bytes); };
  if (compression == storage::Compression::gzip || compression == storage::Compression::zstd) {
    copy(to_file);
    return compression == storage::Compression::gzip ? kOciLayerGzip : kOciLayerZstd;
  }
  source = storage::decompress(std::move(source));
  GzipWriter gzip(to_file);
  copy([&](std::string_view bytes) { gzip.write(bytes); });
  gzip.finish();
  return kOciLayerGzip;
}

/// Spools the stream, stores it as a blob and unpacks it on top of `parent`. The holds must outlive its use.
Task<NewLayer> add_layer(Context& context, std::string parent, std::shared_ptr<storage::ByteSource> source,
                         BlobHold* blobs, storage::LayerHold* layers) {
  struct Abort {
    std::shared_ptr<storage::ByteSource> source;
    ~Abort() {
      if (source) source->abort();
    }
  } abort{source};
  struct Spooled {
    std::shared_ptr<Ingest> ingest;
    std::string_view media_type;
  };
  Spooled spooled = co_await context.archives.run([&content = context.content(), source] {
    auto ingest = content.begin();
    const std::string_view type = spool_blocking(*ingest, source);
    return Spooled{ingest, type};
  });
  abort.source.reset();
  NewLayer out;
  out.blob.media_type = spooled.media_type;
  out.blob.digest = spooled.ingest->finish();
  out.blob.size = spooled.ingest->size();
  blobs->add(out.blob.digest);
  if (!context.content().contains(out.blob.digest))
    (void)co_await context.content().commit(spooled.ingest, out.blob.digest, out.blob.size);
  FAILPOINT("image.build.after_blob");
  storage::UnpackRequest request;
  request.parent = parent;
  request.blob_digest = out.blob.digest;
  request.source = co_await context.content().open(out.blob.digest);
  storage::Unpacked unpacked = co_await context.layers().unpack(std::move(request));
  layers->add(unpacked.layer.chain_id);
  out.layer = std::move(unpacked.layer);
  co_return out;
}

/// Fetches what `url` gives into a file and returns it as a stream.
Task<std::shared_ptr<storage::ByteSource>> fetch_url(Context& context, std::string url, ProgressPtr progress) {
  const auto scheme_end = url.find("://");
  const std::string scheme = url.substr(0, scheme_end);
  if (scheme != "http" && scheme != "https")
    throw Error(Errc::internal, fmt::format("Get {}: unsupported protocol scheme {}", quote(url), quote(scheme)));
  progress->status(fmt::format("Downloading from {}", url));
  auto ingest = co_await context.lanes.quick.run([&content = context.content()] { return content.begin(); });
  auto received = std::make_shared<std::atomic<std::int64_t>>(0);
  HttpResponse response;
  {
    async::TaskGroup reports(context.loop);
    reports.spawn("import progress", report_download(progress, received));
    auto sink = [ingest, received](int, std::string_view bytes) {
      ingest->write(bytes);
      *received += std::int64_t(bytes.size());
    };
    response = co_await context.registry.get(url, RegistryAuth{}, std::move(sink));
  }
  if (response.status >= 300) {
    const Errc code = response.status == 404   ? Errc::not_found
                      : response.status == 400 ? Errc::invalid_argument
                      : response.status == 401 ? Errc::unauthorized
                      : response.status == 403 ? Errc::forbidden
                                               : Errc::internal;
    throw Error(code, fmt::format("failed to GET {} with status {}: {}", url, status_line(response.status),
                                  trim(std::string_view(response.body).substr(0, 4096))));
  }
  progress->update("", "Importing", ingest->size(), ingest->size());
  co_return co_await context.lanes.quick.run([ingest] { return make_ingest_source(ingest); });
}

/// Writes config and manifest and makes the image known.
Task<ImagePtr> assemble(Context& context, ImageConfig config, std::vector<Descriptor> layers,
                        std::vector<Reference> names, BlobHold* blobs) {
  Manifest manifest;
  manifest.media_type = kOciManifest;
  manifest.layers = std::move(layers);
  const std::string config_text = render_image_config(config);
  manifest.config.media_type = kOciConfig;
  manifest.config.digest = digest_of(config_text);
  manifest.config.size = std::int64_t(config_text.size());
  blobs->add(manifest.config.digest);
  (void)co_await context.content().put(config_text);
  const std::string text = render_manifest(manifest);
  NewImage image;
  image.descriptor.media_type = manifest.media_type;
  image.descriptor.digest = digest_of(text);
  image.descriptor.size = std::int64_t(text.size());
  blobs->add(image.descriptor.digest);
  (void)co_await context.content().put(text);
  FAILPOINT("image.build.before_commit");
  image.manifests.push_back(image.descriptor);
  image.names = std::move(names);
  co_return co_await context.images.add(std::move(image));
}

Task<std::string> import_steps(Context& context, ImportRequest request, ProgressPtr progress) {
  std::vector<Reference> names;
  if (!request.repository.empty()) {
    Reference name = parse_reference(request.repository);
    if (!name.digest.empty()) throw Error(Errc::invalid_argument, "cannot import digest reference");
    if (!request.tag.empty()) {
      if (!is_valid_tag(request.tag)) throw Error(Errc::invalid_argument, "invalid tag format");
      name.tag = request.tag;
    }
    names.push_back(name.with_default_tag());
  }
  ImageConfig config;
  apply_changes(config.config, request.changes);
  config.platform = request.platform ? *request.platform : host_platform();
  config.created = now();
  config.comment = request.message.empty() ? fmt::format("Imported from {}", request.origin) : request.message;

  BlobHold blobs = context.content().hold();
  storage::LayerHold layers = context.layers().hold();
  if (!request.url.empty()) request.archive = co_await fetch_url(context, request.url, progress);
  NewLayer layer = co_await add_layer(context, "", request.archive, &blobs, &layers);
  config.diff_ids.push_back(layer.layer.diff_id);
  HistoryEntry entry;
  entry.created = config.created;
  entry.comment = config.comment;
  config.history.push_back(std::move(entry));
  std::vector<Descriptor> descriptors;
  descriptors.push_back(layer.blob);
  const ImagePtr image =
      co_await assemble(context, std::move(config), std::move(descriptors), std::move(names), &blobs);
  context.publish("import", image->id, image->id, image.get());
  progress->status(image->id);
  co_return image->id;
}

Task<ImagePtr> commit_steps(Context& context, CommitRequest request) {
  BlobHold blobs = context.content().hold();
  storage::LayerHold chains = context.layers().hold();
  ImageConfig config = std::move(request.config);
  config.diff_ids.clear();
  std::vector<Descriptor> layers;
  std::string parent;
  if (request.base) {
    config.diff_ids = request.base->diff_ids;
    layers = request.base->layers;
    parent = request.base->top_chain();
    for (const Descriptor& layer : layers) blobs.add(layer.digest);
    for (const std::string& chain : request.base->chain_ids) chains.add(chain);
  }
  if (request.layer) {
    if (layers.size() >= kMaxLayers) throw Error(Errc::invalid_argument, "max depth exceeded");
    NewLayer layer = co_await add_layer(context, parent, request.layer, &blobs, &chains);
    config.diff_ids.push_back(layer.layer.diff_id);
    layers.push_back(layer.blob);
  } else if (!config.history.empty()) {
    config.history.back().empty_layer = true;
  }
  co_return co_await assemble(context, std::move(config), std::move(layers), std::move(request.names), &blobs);
}

}  // namespace

Task<std::string> import(Context& context, ImportRequest request, ProgressPtr progress) {
  co_return co_await swept_if_it_fails(context, import_steps(context, std::move(request), std::move(progress)));
}

Task<ImagePtr> commit(Context& context, CommitRequest request) {
  co_return co_await swept_if_it_fails(context, commit_steps(context, std::move(request)));
}

}  // namespace gantry::image
