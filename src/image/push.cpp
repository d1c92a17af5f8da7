#include "image/push.hpp"

#include <atomic>
#include <set>

#include <fcntl.h>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "json/json.hpp"
#include "sys/file.hpp"

namespace gantry::image {
namespace {

/// One tag on its way out.
class Push : public std::enable_shared_from_this<Push> {
 public:
  Push(Context& context, RepositoryPtr repository, ProgressPtr progress, Reference name)
      : context_(context),
        repository_(std::move(repository)),
        progress_(std::move(progress)),
        name_(std::move(name)),
        hold_(context.content().hold()) {}

  Task<void> run(ImagePtr image, bool only_this_platform) {
    const bool is_index = image->id != image->manifest.digest;
    std::vector<ImagePtr> variants{image};
    std::vector<Attachment> attachments;
    bool whole = !only_this_platform;
    if (is_index && whole) {
      whole = co_await is_index_pushable(image->id);
      if (whole) {
        variants = context_.images.list_variants(image->id);
        attachments = context_.images.list_attachments(image->id);
      }
    }
    for (const ImagePtr& variant : variants) plan(*variant);
    for (const Attachment& a : attachments) plan(a);
    co_await push_blobs();
    const Descriptor top = whole ? image->descriptor : image->manifest;
    for (const ImagePtr& variant : variants)
      if (variant->manifest.digest != top.digest) co_await put(variant->manifest, variant->manifest.digest);
    for (const Attachment& a : attachments) co_await put(a.descriptor, a.descriptor.digest);
    co_await put(top, name_.tag);
    if (is_index && !whole && !only_this_platform)
      progress_->aux(json::render(json::Object{{"manifestPushedInsteadOfIndex", true},
                                               {"originalIndex", describe(image->descriptor)},
                                               {"selectedManifest", describe(image->manifest)}}));
    progress_->status(fmt::format("{}: digest: {} size: {}", name_.tag, top.digest, top.size));
    progress_->aux(json::render(json::Object{{"Tag", name_.tag}, {"Digest", top.digest}, {"Size", top.size}}));
  }

 private:
  struct Item {
    Descriptor blob;
    bool is_layer = false;
    std::shared_ptr<std::atomic<std::int64_t>> sent = std::make_shared<std::atomic<std::int64_t>>(0);
    bool uploading = false;
    bool done = false;
  };

  /// An index can be pushed if each of its manifests is here or there. Otherwise its best platform goes instead.
  Task<bool> is_index_pushable(std::string id) {
    for (const ManifestSummary& m : context_.images.list_manifests(id))
      if (!m.available && !co_await repository_->has_manifest(m.descriptor.digest)) co_return false;
    co_return true;
  }

  static json::Object describe(const Descriptor& d) {
    json::Object out{{"mediaType", d.media_type}, {"digest", d.digest}, {"size", d.size}};
    if (d.platform) {
      json::Object platform{{"architecture", d.platform->architecture}, {"os", d.platform->os}};
      if (!d.platform->variant.empty()) platform.emplace("variant", d.platform->variant);
      out.emplace("platform", std::move(platform));
    }
    return out;
  }

  void plan(const Attachment& attachment) {
    add(attachment.manifest.config, false);
    for (const Descriptor& blob : attachment.manifest.layers) add(blob, false);
  }

  void plan(const Image& image) {
    for (const Descriptor& layer : image.layers) add(layer, true);
    Descriptor config;
    config.digest = image.config_digest;
    config.size = context_.content().find_size(image.config_digest).value_or(0);
    add(config, false);
  }

  void add(const Descriptor& blob, bool is_layer) {
    if (!seen_.insert(blob.digest).second) return;
    hold_.add(blob.digest);
    Item item;
    item.blob = blob;
    item.is_layer = is_layer;
    items_.push_back(std::move(item));
    if (is_layer) progress_->status("Preparing", layer_label(blob));
  }

  Task<void> push_blobs() {
    async::TaskGroup tasks(context_.loop);
    const int workers = std::min<int>(context_.max_uploads, static_cast<int>(items_.size()));
    for (int i = 0; i < workers; ++i) tasks.spawn("push", work(shared_from_this()));
    while (!failure_ && finished_ < items_.size()) {
      (void)co_await changed_.wait_for(std::chrono::milliseconds(100));
      for (const Item& item : items_)
        if (item.uploading && item.is_layer)
          progress_->update(layer_label(item.blob), "Pushing", *item.sent, item.blob.size);
    }
    if (failure_) std::rethrow_exception(failure_);
  }

  Task<void> work(std::shared_ptr<Push> self) {
    try {
      while (self->next_ < self->items_.size() && !self->failure_) co_await self->push_blob(self->next_++);
    } catch (const std::exception&) {  // push_blobs() would wait for ever for a worker that ended in any other way
      if (!self->failure_) self->failure_ = std::current_exception();
    }
    self->changed_.notify();
  }

  void say(const Item& item, const std::string& text) {
    if (item.is_layer) progress_->status(text, layer_label(item.blob));
  }

  Task<void> push_blob(std::size_t index) {
    Item& item = items_[index];
    const std::string digest = item.blob.digest;
    if (co_await repository_->has_blob(digest)) {
      say(item, "Layer already exists");
    } else if (const std::string from = co_await mount(digest); !from.empty()) {
      say(item, "Mounted from " + from);
    } else {
      auto upload = std::make_shared<Upload>();
      upload->size = context_.content().find_size(digest).value_or(-1);
      if (upload->size < 0) throw Error(Errc::not_found, fmt::format("content digest {}: not found", digest));
      upload->fd = co_await context_.lanes.quick.run(
          [file = context_.content().path(digest)] { return sys::open_file(file, O_RDONLY); });
      upload->sent = [sent = item.sent](std::int64_t bytes) { *sent = bytes; };
      item.uploading = true;
      co_await repository_->upload_blob(digest, std::move(upload));
      item.uploading = false;
      say(item, "Pushed");
    }
    item.done = true;
    ++finished_;
    changed_.notify();
  }

  /// The repository that the blob was taken over from; empty if it was not.
  Task<std::string> mount(std::string digest) {
    int tried = 0;
    for (const std::string& source : context_.images.blob_sources(digest)) {
      const auto from = try_parse_reference(source);
      if (!from || from->domain != name_.domain || from->path == name_.path || ++tried > 3) continue;
      if (co_await repository_->mount_blob(digest, from->path)) co_return from->path;
    }
    co_return std::string();
  }

  Task<void> put(Descriptor manifest, std::string reference) {
    std::string bytes = co_await context_.content().read(manifest.digest, kMaxManifestBytes);
    co_await repository_->put_manifest(std::move(reference), manifest.media_type, std::move(bytes));
  }

  Context& context_;
  RepositoryPtr repository_;
  ProgressPtr progress_;
  const Reference name_;
  BlobHold hold_;
  std::set<std::string> seen_;
  std::vector<Item> items_;
  std::size_t next_ = 0;
  std::size_t finished_ = 0;
  std::exception_ptr failure_;
  async::Signal changed_;
};

std::vector<Reference> tags_of(const Images& images, const Reference& repository) {
  std::vector<Reference> out;
  for (const ImageSummary& summary : images.list({}))
    for (const std::string& tag : summary.image->repo_tags) {
      Reference name = parse_reference(tag);
      if (name.name() == repository.name()) out.push_back(std::move(name));
    }
  return out;
}

}  // namespace

Task<void> push(Context& context, PushRequest request, ProgressPtr progress) {
  Reference name = parse_reference(request.image);
  if (!name.digest.empty()) throw Error(Errc::invalid_argument, "cannot push a digest reference");
  if (!request.tag.empty()) {
    if (!is_valid_tag(request.tag)) throw Error(Errc::invalid_argument, "invalid tag format");
    name.tag = request.tag;
  }
  progress->status(fmt::format("The push refers to repository [{}]", name.name()));
  std::vector<Reference> names{name};
  if (name.tag.empty()) names = tags_of(context.images, name);
  if (names.empty())
    throw Error(Errc::not_found, fmt::format("An image does not exist locally with the tag: {}", name.familiar_name()));
  RepositoryPtr repository = co_await context.registry.open(name, request.auth, "pull,push");
  for (const Reference& one : names) {
    const ImagePtr image = context.images.find(one.familiar(), request.platform);
    if (!image) {
      const bool known = !tags_of(context.images, one).empty();
      throw Error(Errc::not_found,
                  known ? fmt::format("tag does not exist: {}", one.familiar())
                        : fmt::format("An image does not exist locally with the tag: {}", one.familiar_name()));
    }
    auto push = std::make_shared<Push>(context, repository, progress, one);
    co_await push->run(image, request.platform.has_value());
    context.publish("push", one.familiar(), one.familiar_name(), image.get());
  }
}

}  // namespace gantry::image
