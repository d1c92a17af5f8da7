#include "image/pull.hpp"

#include <cerrno>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/layer_pull.hpp"

namespace gantry::image {
namespace {

struct Wanted {
  Reference name;  // with a tag or a digest
  std::optional<Platform> platform;
};

/// One platform's image within what the reference stands for.
struct Choice {
  Descriptor descriptor;
  Manifest manifest;
  ImageConfig config;
};

[[noreturn]] void no_matching_platform(const PlatformMatcher& matcher) {
  throw Error(Errc::not_found, fmt::format("no matching manifest for {} in the manifest list entries", matcher.text()));
}

/// Joins what the image and tag parameters of a request say.
Reference read_request(const PullRequest& request) {
  std::string image = request.image;
  while (image.ends_with(':')) image.pop_back();
  Reference name = parse_reference(image);
  if (!request.tag.empty()) {
    if (request.tag.find(':') != std::string::npos) {
      validate_digest(request.tag);
      name.digest = request.tag;
    } else {
      if (!is_valid_tag(request.tag)) throw Error(Errc::invalid_argument, "invalid tag format");
      name.tag = request.tag;
      name.digest.clear();
    }
  }
  if (name.familiar_name() == "scratch") throw Error(Errc::forbidden, "'scratch' is a reserved name");
  return name;
}

/// A pull of one reference. The blobs that it stores are held until it ends.
class Pull {
 public:
  Pull(Context& context, RepositoryPtr repository, ProgressPtr progress, Wanted wanted)
      : context_(context),
        repository_(std::move(repository)),
        progress_(std::move(progress)),
        wanted_(std::move(wanted)),
        matcher_(wanted_.platform ? PlatformMatcher::only(*wanted_.platform) : PlatformMatcher::host()),
        layers_(std::make_shared<LayerPull>(context_, repository_, progress_)) {}

  Task<void> run() {
    const Reference& name = wanted_.name;
    const std::string target = name.digest.empty() ? name.tag : name.digest;
    RemoteManifest root = co_await repository_->resolve(target);
    progress_->headline(fmt::format("Pulling from {}", name.path), target);

    const std::string text = co_await fetch_document(root);
    const Document document = parse_document(text, root.descriptor.media_type);
    root.descriptor.size = std::int64_t(text.size());
    root.descriptor.media_type = std::visit([](const auto& d) { return d.media_type; }, document);
    const ImagePtr before = context_.images.find(name_in_index().familiar());

    bool complete = true;
    NewImage image;
    image.descriptor = root.descriptor;
    image.names.push_back(name_in_index());
    image.source_repository = name.name();
    if (const auto ready = find_complete(root.descriptor, document)) {
      image.manifests.push_back(*ready);
    } else {
      Choice choice = co_await choose(root, text, document);
      image.manifests.push_back(choice.descriptor);
      complete = false;
      (void)co_await layers_->run(std::move(choice.manifest), std::move(choice.config));
    }
    if (const auto* index = std::get_if<Index>(&document))
      if (co_await fetch_attestations(*index, image.manifests.front().digest)) complete = false;
    FAILPOINT("pull.before_commit");
    changed_ = !complete || !before || before->id != root.descriptor.digest;
    ImagePtr added;
    if (changed_) added = co_await context_.images.add(std::move(image));
    progress_->status(fmt::format("Digest: {}", root.descriptor.digest));
    context_.publish("pull", name.familiar(), name.familiar_name(), added ? added.get() : before.get());
  }

  bool changed() const noexcept { return changed_; }

 private:
  /// "name:tag", or "name@digest" when the digest was given: then the tag is not looked at.
  Reference name_in_index() const {
    return wanted_.name.digest.empty() ? wanted_.name : wanted_.name.with_digest(wanted_.name.digest);
  }

  /// The bytes of an index or manifest: from here, from the answer, or from the registry. Stored on return.
  Task<std::string> fetch_document(RemoteManifest document) {
    const std::string digest = document.descriptor.digest;
    (void)digest_hex(digest);
    layers_->hold_blob(digest);
    if (context_.content().contains(digest)) co_return co_await context_.content().read(digest, kMaxManifestBytes);
    std::string bytes = std::move(document.bytes);
    if (bytes.empty()) {
      RemoteManifest fetched = co_await repository_->get_manifest(digest);
      bytes = std::move(fetched.bytes);
    }
    // Refused before it is kept.
    (void)parse_document(bytes, document.descriptor.media_type);
    (void)co_await context_.content().put(bytes);
    co_return bytes;
  }

  /// The manifest for our platform, if it is here already with everything that belongs to it.
  std::optional<Descriptor> find_complete(const Descriptor& root, const Document& document) const {
    std::vector<Descriptor> candidates;
    if (const auto* index = std::get_if<Index>(&document)) candidates = select_manifests(*index, matcher_);
    else candidates.push_back(root);
    const ImagePtr image = context_.images.find(root.digest, wanted_.platform);
    if (!image || candidates.empty() || !image->available || image->manifest.digest != candidates.front().digest)
      return std::nullopt;
    if (!context_.layers().is_complete(image->top_chain())) return std::nullopt;
    for (const Descriptor& layer : image->layers)
      if (!context_.content().contains(layer.digest)) return std::nullopt;
    return image->manifest;
  }

  /// Fetches what the index attests of our image. True if there was anything new. An image is usable without, so what
  /// cannot be had is left out.
  Task<bool> fetch_attestations(Index index, std::string subject) {
    bool any = false;
    for (const Descriptor& d : index.manifests) {
      if (!is_manifest_type(d.media_type) || !is_attestation(d) || attestation_subject(d) != subject) continue;
      try {
        any = co_await fetch_attestation(d) || any;
      } catch (const Error& e) {
        if (e.code() == Errc::cancelled) throw;
        log::info("the attestation {} of {} is left out: {}", d.digest, wanted_.name.familiar(), e.message());
      }
    }
    co_return any;
  }

  Task<bool> fetch_attestation(Descriptor d) {
    (void)digest_hex(d.digest);
    layers_->hold_blob(d.digest);
    std::string text;
    if (context_.content().contains(d.digest)) {
      text = co_await context_.content().read(d.digest, kMaxManifestBytes);
    } else {
      RemoteManifest remote = co_await repository_->get_manifest(d.digest);
      text = std::move(remote.bytes);
    }
    const Manifest manifest = parse_any_manifest(text, d.media_type);
    std::vector<Descriptor> blobs = manifest.layers;
    blobs.push_back(manifest.config);
    bool any = false;
    for (const Descriptor& blob : blobs) {
      (void)digest_hex(blob.digest);
      layers_->hold_blob(blob.digest);
      if (context_.content().contains(blob.digest)) continue;
      (void)co_await context_.content().put(co_await repository_->get_blob(blob, kMaxStatementBytes));
      any = true;
    }
    if (context_.content().contains(d.digest)) co_return any;
    (void)co_await context_.content().put(std::move(text));
    co_return true;
  }

  Task<Choice> read_choice(Descriptor descriptor, std::string text) {
    Choice choice;
    choice.manifest = parse_manifest(text, descriptor.media_type);
    choice.descriptor = std::move(descriptor);
    choice.descriptor.media_type = choice.manifest.media_type;
    const Descriptor& config = choice.manifest.config;
    (void)digest_hex(config.digest);
    layers_->hold_blob(config.digest);
    std::string bytes;
    if (context_.content().contains(config.digest)) {
      bytes = co_await context_.content().read(config.digest, kMaxConfigBytes);
    } else {
      bytes = co_await repository_->get_blob(config, kMaxConfigBytes);
      choice.config = parse_image_config(bytes);  // refused before it is kept
      (void)co_await context_.content().put(bytes);
    }
    choice.config = parse_image_config(bytes);
    co_return choice;
  }

  Task<Choice> choose(RemoteManifest root, std::string text, Document document) {
    const auto* index = std::get_if<Index>(&document);
    if (index == nullptr) {
      Choice choice = co_await read_choice(root.descriptor, std::move(text));
      if (wanted_.platform && !matcher_.matches(choice.config.platform)) no_matching_platform(matcher_);
      if (choice.config.platform.os != "linux")
        throw Error(Errc::invalid_argument, fmt::format("image operating system {} cannot be used on this platform",
                                                        quote(choice.config.platform.os)));
      co_return choice;
    }
    for (const Descriptor& candidate : select_manifests(*index, matcher_)) {
      RemoteManifest remote;
      remote.descriptor = candidate;
      std::string bytes = co_await fetch_document(std::move(remote));
      if (std::int64_t(bytes.size()) != candidate.size)
        throw Error(Errc::corrupted, fmt::format("manifest {} has {} bytes instead of {}", candidate.digest,
                                                 bytes.size(), candidate.size));
      Choice choice = co_await read_choice(candidate, std::move(bytes));
      if (candidate.platform || matcher_.matches(choice.config.platform)) co_return choice;
    }
    no_matching_platform(matcher_);
  }

  Context& context_;
  RepositoryPtr repository_;
  ProgressPtr progress_;
  const Wanted wanted_;
  const PlatformMatcher matcher_;
  std::shared_ptr<LayerPull> layers_;
  bool changed_ = false;
};

}  // namespace

std::string layer_label(const Descriptor& layer) { return short_digest(layer.digest); }

namespace {

Task<void> pull_all(Context& context, PullRequest request, ProgressPtr progress) {
  const Reference name = read_request(request);
  RepositoryPtr repository = co_await context.registry.open(name, request.auth, "pull");
  std::vector<Reference> wanted{name};
  if (name.tag.empty() && name.digest.empty()) {
    wanted.clear();
    for (const std::string& tag : co_await repository->list_tags()) wanted.push_back(name.with_tag(tag));
    if (wanted.empty())
      throw Error(Errc::not_found, fmt::format("no tags found for repository {}", name.familiar_name()));
  }
  bool changed = false;
  for (const Reference& reference : wanted) {
    Wanted one;
    one.name = reference;
    one.platform = request.platform;
    Pull pull(context, repository, progress, std::move(one));
    co_await pull.run();
    changed = changed || pull.changed();
  }
  const std::string shown = wanted.size() == 1 ? wanted.front().familiar() : name.familiar_name();
  progress->status(fmt::format("Status: {} for {}", changed ? "Downloaded newer image" : "Image is up to date", shown));
}

}  // namespace

Task<void> sweep_after(Context& context, const Error& why) {
  // A network that failed may come back, and a client that left may ask again.
  const bool lasting = why.code() != Errc::cancelled && why.code() != Errc::internal && why.code() != Errc::timed_out &&
                       why.code() != Errc::unavailable;
  if (!lasting && why.sys_errno() != ENOSPC) co_return;
  try {
    (void)co_await context.images.collect_garbage();
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    log::warning("sweeping after a failure: {}", e.log_detail());
  }
}

Task<void> pull(Context& context, PullRequest request, ProgressPtr progress) {
  co_await swept_if_it_fails(context, pull_all(context, std::move(request), std::move(progress)));
}

Task<DistributionInfo> inspect_remote(Context& context, std::string image, RegistryAuth auth) {
  if (image.size() == 64 && is_lower_hex(image)) throw Error(Errc::internal, "no manifest found for full image ID");
  const Reference name = parse_reference(image).with_default_tag();
  RepositoryPtr repository = co_await context.registry.open(name, std::move(auth), "pull");
  RemoteManifest root = co_await repository->resolve(name.digest.empty() ? name.tag : name.digest);
  if (root.bytes.empty()) {
    const std::string type = root.descriptor.media_type;
    root = co_await repository->get_manifest(root.descriptor.digest);
    if (root.descriptor.media_type.empty()) root.descriptor.media_type = type;
  }
  DistributionInfo out;
  const Document document = parse_document(root.bytes, root.descriptor.media_type);
  out.descriptor = root.descriptor;
  if (const auto* index = std::get_if<Index>(&document)) {
    for (const Descriptor& m : index->manifests)
      if (m.platform) out.platforms.push_back(*m.platform);
    co_return out;
  }
  const Manifest& manifest = std::get<Manifest>(document);
  const std::string config = co_await repository->get_blob(manifest.config, kMaxConfigBytes);
  out.platforms.push_back(parse_image_config(config).platform);
  co_return out;
}

}  // namespace gantry::image
