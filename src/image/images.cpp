#include "image/images.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "db/sqlite.hpp"
#include "image/digest.hpp"
#include "image/record.hpp"

namespace gantry::image {
namespace {

constexpr std::size_t kShortestId = 4;

Descriptor to_descriptor(const db::ImageManifestRow& row) {
  Descriptor d;
  d.media_type = row.media_type;
  d.digest = row.digest;
  d.size = row.size;
  return d;
}

[[noreturn]] void no_such_image(const std::string& ref) {
  std::string name = ref;
  if (const auto parsed = try_parse_reference(ref)) name = parsed->with_default_tag().familiar();
  throw Error(Errc::not_found, fmt::format("No such image: {}", name));
}

}  // namespace

Images::Images(async::Lanes& lanes, db::Db& db, storage::LayerStore& layers, ContentStore& content, events::Bus& events)
    : lanes_(lanes), db_(db), layers_(layers), content_(content), events_(events) {}

Images::~Images() = default;

// ---- Recovery

/// Adds what a platform's manifest and config say. Throws if either is lost or damaged.
Task<void> Images::read_variant(Record* record, Descriptor manifest) {
  auto image = std::make_shared<Image>();
  image->id = record->row.id;
  image->descriptor = record->descriptor();
  image->manifest = manifest;
  const std::string text = co_await content_.read(manifest.digest, kMaxManifestBytes);
  const Manifest parsed = parse_manifest(text, manifest.media_type);
  const std::string config = co_await content_.read(parsed.config.digest, kMaxConfigBytes);
  static_cast<ImageConfig&>(*image) = parse_image_config(config);
  if (image->diff_ids.size() != parsed.layers.size())
    throw Error(Errc::corrupted, fmt::format("invalid manifest, layers length mismatch: expected {}, got {}",
                                             image->diff_ids.size(), parsed.layers.size()));
  image->layers = parsed.layers;
  image->config_digest = parsed.config.digest;
  image->manifest.platform = image->platform;
  image->chain_ids = image::chain_ids(image->diff_ids);
  std::set<std::string> counted;
  for (const Descriptor& layer : parsed.layers)
    if (counted.insert(layer.digest).second) image->content_size += layer.size;
  image->content_size += manifest.size + parsed.config.size;
  if (record->row.id != manifest.digest) image->content_size += record->row.size;
  image->unpacked_size = layers_.chain_size(image->top_chain());
  const auto same = std::find_if(record->variants.begin(), record->variants.end(),
                                 [&](const ImagePtr& v) { return v->manifest.digest == manifest.digest; });
  if (same != record->variants.end()) *same = std::move(image);
  else record->variants.push_back(std::move(image));
}

/// A record with what can be read of it. What cannot is in its variants, marked as not available.
Task<std::unique_ptr<Images::Record>> Images::load_record(db::ImageRow row, std::vector<Descriptor> manifests) {
  auto record = std::make_unique<Record>();
  record->row = std::move(row);
  record->wanted = manifests;
  if (is_index_type(record->row.media_type)) {
    const std::string text = co_await content_.read(record->row.id, kMaxManifestBytes);
    record->index = parse_index(text, record->row.media_type);
  }
  for (Descriptor& manifest : manifests) co_await read_variant(record.get(), std::move(manifest));
  co_await read_attachments(record.get());
  co_return record;
}

/// Finds what of the index is here beside images. Nothing depends on it: what is incomplete or damaged is left out.
Task<void> Images::read_attachments(Record* record) {
  if (!record->index) co_return;
  for (const Descriptor& d : record->index->manifests) {
    if (!is_manifest_type(d.media_type) || !content_.contains(d.digest)) continue;
    if (std::any_of(record->variants.begin(), record->variants.end(),
                    [&](const ImagePtr& v) { return v->manifest.digest == d.digest; }))
      continue;
    Attachment attachment;
    attachment.descriptor = d;
    try {
      const std::string text = co_await content_.read(d.digest, kMaxManifestBytes);
      attachment.manifest = parse_any_manifest(text, d.media_type);
    } catch (const Error& e) {
      if (e.code() == Errc::cancelled) throw;
      continue;
    }
    // Another platform's image is no attachment, although its blobs may be here.
    if (!is_attestation(d) && is_image(attachment.manifest)) continue;
    const auto& layers = attachment.manifest.layers;
    if (!content_.contains(attachment.manifest.config.digest) ||
        !std::all_of(layers.begin(), layers.end(), [&](const Descriptor& l) { return content_.contains(l.digest); }))
      continue;
    record->attachments.push_back(std::move(attachment));
  }
}

void Images::check_layers(const Image& image, std::vector<storage::Problem>& problems) const {
  for (std::size_t i = 0; i < image.chain_ids.size(); ++i) {
    const storage::Layer* layer = layers_.find(image.chain_ids[i]);
    if (layer != nullptr && layer->state == db::LayerState::ready) continue;
    const bool have_blob = content_.contains(image.layers[i].digest);
    problems.push_back({fmt::format("image {}", image.id), fmt::format("layer {} is missing", image.chain_ids[i]),
                        have_blob ? "rebuilt from its blob when it is needed" : "pull the image again"});
  }
}

Task<std::vector<storage::Problem>> Images::recover() {
  struct Rows {
    std::vector<db::ImageRow> images;
    std::vector<db::ImageManifestRow> manifests;
    std::vector<db::ImageNameRow> names;
    std::vector<db::BlobSourceRow> sources;
  };
  Rows rows = co_await lanes_.db.run([&db = db_] {
    return Rows{db::list_images(db), db::list_image_manifests(db), db::list_image_names(db), db::list_blob_sources(db)};
  });
  records_.clear();
  names_.clear();
  sources_.clear();
  std::vector<storage::Problem> problems;
  std::map<std::string, std::vector<Descriptor>> manifests;
  for (const auto& row : rows.manifests) manifests[row.image].push_back(to_descriptor(row));
  for (const db::ImageRow& row : rows.images) {
    std::unique_ptr<Record> record;
    try {
      record = co_await load_record(row, manifests[row.id]);
    } catch (const Error& e) {
      problems.push_back({"image " + row.id, e.message(), "it cannot be used; pull it again or remove it"});
    }
    if (!record) {
      record = std::make_unique<Record>();
      record->row = row;
      record->wanted = manifests[row.id];
    }
    if (record->variants.empty()) {
      auto broken = std::make_shared<Image>();
      broken->id = row.id;
      broken->descriptor = broken->manifest = record->descriptor();
      broken->available = false;
      record->variants.push_back(std::move(broken));
    }
    // Other platforms' layers are unpacked when they are asked for.
    check_layers(*first_choice(*record), problems);
    records_.emplace(row.id, std::move(record));
  }
  for (const auto& row : rows.names) {
    const auto it = records_.find(row.image);
    if (it == records_.end()) continue;
    names_[row.name] = row.image;
    it->second->names.insert(row.name);
  }
  for (const auto& row : rows.sources) sources_[row.digest].insert(row.repository);
  for (auto& [id, record] : records_) refresh(*record);
  co_return problems;
}

/// Makes new snapshots of a record whose names or layers have changed.
void Images::refresh(Record& record) {
  std::vector<std::string> tags, digests;
  std::set<std::string> repositories;
  for (const std::string& name : record.names) {
    const auto ref = try_parse_reference(name);
    if (!ref) continue;
    if (!ref->tag.empty()) tags.push_back(ref->with_tag(ref->tag).familiar());
    repositories.insert(ref->familiar_name());
  }
  for (const std::string& repository : repositories) digests.push_back(repository + "@" + record.row.id);
  std::sort(tags.begin(), tags.end());
  for (ImagePtr& variant : record.variants) {
    auto next = std::make_shared<Image>(*variant);
    next->repo_tags = tags;
    next->repo_digests = digests;
    next->last_tagged = record.row.last_tagged;
    next->added = record.row.added;
    next->unpacked_size = layers_.chain_size(next->top_chain());
    variant = std::move(next);
  }
}

void Images::move_name(const std::string& name, Record& to) {
  const auto old = names_.find(name);
  if (old != names_.end() && old->second != to.row.id) {
    const auto from = records_.find(old->second);
    if (from != records_.end()) {
      from->second->names.erase(name);
      refresh(*from->second);
    }
  }
  names_[name] = to.row.id;
  to.names.insert(name);
}

// ---- Finding

Images::Found Images::resolve(const std::string& ref) const {
  const auto by_id = [&](const std::string& id) -> Record* {
    const auto it = records_.find(id);
    return it == records_.end() ? nullptr : it->second.get();
  };
  const std::string bare = ref.starts_with("sha256:") ? ref.substr(7) : ref;
  if (bare.size() == 64 && is_lower_hex(bare)) {
    if (Record* record = by_id("sha256:" + bare)) return {record, std::nullopt};
    // Other tools know an image by its platform's manifest or by its config.
    for (const auto& [id, record] : records_)
      for (const ImagePtr& v : record->variants)
        if (v->manifest.digest == "sha256:" + bare || v->config_digest == "sha256:" + bare)
          return {record.get(), std::nullopt};
    return {};
  }
  std::optional<Reference> name;
  if (!ref.starts_with("sha256:")) {
    name = parse_reference(ref).with_default_tag();
    if (!name->digest.empty()) {
      Record* record = by_id(name->digest);
      if (record == nullptr) return {};
      for (const std::string& known : record->names)
        if (parse_reference(known).name() == name->name()) return {record, name->with_digest(name->digest)};
      return {};
    }
    if (const auto it = names_.find(name->canonical()); it != names_.end()) return {by_id(it->second), name};
  }
  if (bare.size() < kShortestId || bare.size() > 64 || !is_lower_hex(bare)) return {};
  const std::string prefix = "sha256:" + bare;
  auto it = records_.lower_bound(prefix);
  if (it == records_.end() || !it->first.starts_with(prefix)) return {};
  Record* record = it->second.get();
  if (++it != records_.end() && it->first.starts_with(prefix))
    throw Error(Errc::not_found, fmt::format("ambiguous reference: {}", ref));
  return {record, std::nullopt};
}

ImagePtr Images::choose(const Record& record, const std::optional<Platform>& platform) const {
  const PlatformMatcher matcher = platform ? PlatformMatcher::only(*platform) : PlatformMatcher::host();
  ImagePtr best;
  int best_rank = 0;
  for (const ImagePtr& variant : record.variants) {
    const auto rank = matcher.rank(variant->platform);
    if (!rank || (best && *rank >= best_rank)) continue;
    best = variant;
    best_rank = *rank;
  }
  if (!best && !platform && !record.variants.empty()) best = record.variants.front();
  return best;
}

ImagePtr Images::first_choice(const Record& record) const { return choose(record, std::nullopt); }

ImagePtr Images::find(const std::string& ref, const std::optional<Platform>& platform) const {
  const Found found = resolve(ref);
  return found.record == nullptr ? nullptr : choose(*found.record, platform);
}

ImagePtr Images::get(const std::string& ref, const std::optional<Platform>& platform) const {
  const Found found = resolve(ref);
  if (found.record == nullptr) no_such_image(ref);
  ImagePtr image = choose(*found.record, platform);
  if (!image)
    throw Error(Errc::not_found,
                fmt::format("image with reference {} was found but does not provide the specified platform ({})", ref,
                            render_platform(*platform)));
  return image;
}

std::vector<std::string> Images::blob_sources(const std::string& digest) const {
  const auto it = sources_.find(digest);
  if (it == sources_.end()) return {};
  return {it->second.begin(), it->second.end()};
}

// ---- Changes

Task<ImagePtr> Images::add(NewImage image) {
  const auto lock = co_await writes_.lock("image.add");
  db::ImageRow row{image.descriptor.digest, image.descriptor.media_type, image.descriptor.size, now(), {}};
  if (const auto it = records_.find(row.id); it != records_.end()) row = it->second->row;
  if (!image.names.empty()) row.last_tagged = now();

  // Read everything back before it is announced: what cannot be read is not an image.
  auto fresh = co_await load_record(row, image.manifests);
  std::vector<db::ImageManifestRow> manifests;
  std::vector<db::BlobSourceRow> sources;
  for (const Descriptor& m : image.manifests) manifests.push_back({row.id, m.digest, m.media_type, m.size});
  if (!image.source_repository.empty())
    for (const ImagePtr& variant : fresh->variants)
      for (const Descriptor& layer : variant->layers) sources.push_back({layer.digest, image.source_repository});
  std::vector<std::string> names;
  for (const Reference& name : image.names) names.push_back(name.canonical());
  FAILPOINT("image.add.before_row");
  co_await lanes_.db.run(
      [&db = db_, row, manifests, names, sources] { db::save_image(db, row, manifests, names, sources); });

  // No co_await from here on: memory follows the committed row in any case.
  std::unique_ptr<Record>& slot = records_[row.id];
  if (slot) {
    for (const ImagePtr& old : slot->variants) {
      const bool replaced = std::any_of(fresh->variants.begin(), fresh->variants.end(),
                                        [&](const ImagePtr& v) { return v->manifest.digest == old->manifest.digest; });
      if (!replaced && old->available) fresh->variants.push_back(old);
    }
    fresh->names = slot->names;
  }
  slot = std::move(fresh);
  for (const std::string& name : names) move_name(name, *slot);
  for (const auto& source : sources) sources_[source.digest].insert(source.repository);
  refresh(*slot);
  co_return first_choice(*slot);
}

Task<void> Images::tag(std::string ref, std::string repository, std::string tag) {
  const auto lock = co_await writes_.lock("image.tag");
  Reference name = parse_reference(repository);
  if (!name.digest.empty()) throw Error(Errc::invalid_argument, "cannot import digest reference");
  if (!tag.empty()) {
    if (!is_valid_tag(tag)) throw Error(Errc::invalid_argument, "invalid tag format");
    name.tag = tag;
  }
  name = name.with_default_tag();
  if (name.familiar_name() == "sha256" || name.familiar_name() == "sha512")
    throw Error(Errc::invalid_argument, "refusing to create an ambiguous tag using digest algorithm as name");
  const Found found = resolve(ref);
  if (found.record == nullptr) no_such_image(ref);
  const std::string id = found.record->row.id;
  const Timestamp when = now();
  const db::ImageNameRow row{name.canonical(), id};
  co_await lanes_.db.run([&db = db_, row, when] { db::save_image_name(db, row, when); });
  Record& record = *records_.at(id);
  record.row.last_tagged = when;
  move_name(row.name, record);
  refresh(record);
  publish("tag", id, name.familiar(), first_choice(record).get());
}

Task<void> Images::ensure_unpacked(ImagePtr image) {
  if (!image->available)
    throw Error(Errc::corrupted, fmt::format("image {} is damaged: pull it again", short_digest(image->id)));
  if (layers_.is_complete(image->top_chain())) co_return;
  for (std::size_t i = 0; i < image->chain_ids.size(); ++i) {
    const std::string chain = image->chain_ids[i];
    const storage::Layer* layer = layers_.find(chain);
    if (layer != nullptr && layer->state == db::LayerState::ready) continue;
    BlobHold hold = content_.hold();
    hold.add(image->layers[i].digest);
    co_await require_blob(image, image->layers[i]);
    std::exception_ptr damage;
    try {
      co_await unpack_layer(image, i);
    } catch (const Error& e) {
      if (e.code() != Errc::corrupted && e.code() != Errc::invalid_argument) throw;
      damage = std::current_exception();
    }
    if (!damage) continue;
    // The blob does not give the layer that it should: it is damaged, or its registry lied.
    if ((co_await content_.examine(image->layers[i].digest)).empty()) std::rethrow_exception(damage);
    (void)co_await content_.quarantine(image->layers[i].digest);
    co_await require_blob(image, image->layers[i]);
    co_await unpack_layer(image, i);
  }
  if (const auto it = records_.find(image->id); it != records_.end()) refresh(*it->second);
}

Task<void> Images::require_blob(ImagePtr image, Descriptor blob) {
  if (content_.contains(blob.digest)) co_return;
  if (refetch_ && co_await refetch_(repositories_of_image(image->id), blob)) co_return;
  throw Error(Errc::corrupted, fmt::format("a layer of image {} is lost, and so is its blob {}: pull the image again",
                                           short_digest(image->id), short_digest(blob.digest)));
}

Task<void> Images::unpack_layer(ImagePtr image, std::size_t index) {
  const std::string chain = image->chain_ids[index];
  auto source = co_await content_.open(image->layers[index].digest);
  if (layers_.find(chain) != nullptr) {
    (void)co_await layers_.rebuild(chain, std::move(source));
    co_return;
  }
  storage::UnpackRequest request;
  request.parent = index == 0 ? std::string() : image->chain_ids[index - 1];
  request.diff_id = image->diff_ids[index];
  request.blob_digest = image->layers[index].digest;
  request.source = std::move(source);
  (void)co_await layers_.unpack(std::move(request));
}

void Images::publish(const std::string& action, const std::string& actor, const std::string& name,
                     const Image* image) const {
  std::map<std::string, std::string> attributes;
  if (image != nullptr && image->config.Labels) attributes = *image->config.Labels;
  attributes["name"] = name;
  events_.publish("image", action, actor, std::move(attributes));
}

}  // namespace gantry::image
