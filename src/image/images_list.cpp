#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/images.hpp"
#include "image/prune_filter.hpp"
#include "image/record.hpp"

namespace gantry::image {
namespace {

bool matches_reference_filter(const Filters& filters, const std::set<std::string>& names) {
  if (!filters.has("reference")) return true;
  for (const std::string& name : names) {
    const auto ref = try_parse_reference(name);
    if (!ref) continue;
    for (const std::string& pattern : filters.values("reference"))
      if (familiar_matches(pattern, *ref)) return true;
  }
  return false;
}

}  // namespace

std::vector<ImageUser> Images::users_of(const std::string& id) const {
  std::vector<ImageUser> out;
  if (!users_) return out;
  for (ImageUser& user : users_())
    if (user.image_id == id) out.push_back(std::move(user));
  return out;
}

std::vector<ImageSummary> Images::list(const ListOptions& options) const {
  const Filters& filters = options.filters;
  filters.require_known({"dangling", "label", "label!", "before", "since", "until", "reference"});
  const std::optional<bool> dangling = filters.flag("dangling");
  const auto created_of = [&](const char* key) {
    std::vector<Timestamp> out;
    for (const std::string& ref : filters.values(key)) out.push_back(get(ref)->created);
    return out;
  };
  const auto before = created_of("before");
  const auto since = created_of("since");
  const std::optional<Timestamp> until = read_until(filters);

  std::map<std::string, int> sharers;  // chain id to the images that stand on it
  std::map<std::string, std::int64_t> containers;
  if (options.shared_size)
    for (const auto& [id, record] : records_)
      for (const std::string& chain : first_choice(*record)->chain_ids) ++sharers[chain];
  if (users_)
    for (const ImageUser& user : users_()) ++containers[user.image_id];

  std::vector<ImageSummary> out;
  for (const auto& [id, record] : records_) {
    const ImagePtr image = first_choice(*record);
    if (dangling && *dangling != record->names.empty()) continue;
    if (!matches_label_filters(filters, *image) || !matches_reference_filter(filters, record->names)) continue;
    if (until && image->created > *until) continue;
    if (std::any_of(before.begin(), before.end(), [&](Timestamp t) { return image->created >= t; })) continue;
    if (std::any_of(since.begin(), since.end(), [&](Timestamp t) { return image->created <= t; })) continue;
    ImageSummary summary;
    summary.image = image;
    summary.containers = containers[id];
    if (options.shared_size) {
      summary.shared_size = 0;
      for (const std::string& chain : image->chain_ids)
        if (const storage::Layer* layer = layers_.find(chain); layer != nullptr && sharers[chain] > 1)
          summary.shared_size += layer->size;
    }
    if (options.manifests) summary.manifests = summarize(*record);
    out.push_back(std::move(summary));
  }
  std::sort(out.begin(), out.end(), [](const ImageSummary& a, const ImageSummary& b) {
    return a.image->created != b.image->created ? a.image->created > b.image->created : a.image->id < b.image->id;
  });
  return out;
}

std::vector<ManifestSummary> Images::list_manifests(const std::string& id) const {
  const auto it = records_.find(id);
  if (it == records_.end()) throw Error(Errc::not_found, fmt::format("No such image: {}", id));
  return summarize(*it->second);
}

std::vector<ManifestSummary> Images::summarize(const Record& record) const {
  std::vector<Descriptor> all;
  if (record.index) all = record.index->manifests;
  else all.push_back(record.descriptor());
  std::vector<ImageUser> users = users_of(record.row.id);
  std::vector<ManifestSummary> out;
  for (Descriptor& descriptor : all) {
    ManifestSummary m;
    m.attestation = is_attestation(descriptor);
    m.attestation_for = attestation_subject(descriptor);
    if (descriptor.platform) m.platform = *descriptor.platform;
    for (const ImagePtr& v : record.variants) {
      if (v->manifest.digest != descriptor.digest || !v->available) continue;
      m.available = true;
      if (!descriptor.platform) m.platform = v->platform;
      m.content_size = v->content_size;
      m.unpacked_size = v->unpacked_size;
      for (const ImageUser& user : users)
        if (user.top_chain == v->top_chain()) m.containers.push_back(user.container_id);
    }
    for (const Attachment& a : record.attachments) {
      if (a.descriptor.digest != descriptor.digest) continue;
      m.available = true;
      m.unknown = !m.attestation;
      m.content_size = descriptor.size + a.manifest.config.size;
      for (const Descriptor& blob : a.manifest.layers) m.content_size += blob.size;
    }
    m.descriptor = std::move(descriptor);
    out.push_back(std::move(m));
  }
  return out;
}

std::vector<ImagePtr> Images::list_variants(const std::string& id) const {
  const auto it = records_.find(id);
  std::vector<ImagePtr> out;
  if (it != records_.end())
    for (const ImagePtr& variant : it->second->variants)
      if (variant->available) out.push_back(variant);
  return out;
}

std::vector<Attachment> Images::list_attachments(const std::string& id) const {
  const auto it = records_.find(id);
  return it == records_.end() ? std::vector<Attachment>{} : it->second->attachments;
}

Task<std::vector<Statement>> Images::statements(ImagePtr image, std::set<std::string> types, bool with_text) {
  std::vector<Statement> out;
  for (const Attachment& a : list_attachments(image->id)) {
    if (!is_attestation(a.descriptor) || attestation_subject(a.descriptor) != image->manifest.digest) continue;
    for (const Descriptor& blob : a.manifest.layers) {
      const auto type = blob.annotations.find("in-toto.io/predicate-type");
      if (type == blob.annotations.end() || (!types.empty() && !types.contains(type->second))) continue;
      Statement statement{blob, type->second, ""};
      if (with_text) statement.text = co_await content_.read(blob.digest, kMaxStatementBytes);
      out.push_back(std::move(statement));
    }
  }
  co_return out;
}

std::vector<HistoryItem> Images::history(const std::string& ref, const std::optional<Platform>& platform) const {
  const ImagePtr image = get(ref, platform);
  std::vector<HistoryItem> out;
  std::size_t layer = 0;
  const auto layer_size = [&](std::size_t index) -> std::int64_t {
    const storage::Layer* found = index < image->chain_ids.size() ? layers_.find(image->chain_ids[index]) : nullptr;
    return found == nullptr ? 0 : found->size;
  };
  for (const HistoryEntry& entry : image->history) {
    HistoryItem item{"<missing>", entry.created, entry.created_by, entry.comment, 0, {}};
    if (!entry.empty_layer) item.size = layer_size(layer++);
    out.push_back(std::move(item));
  }
  // An image may carry no history, or less than it has layers.
  for (; layer < image->chain_ids.size(); ++layer)
    out.push_back({"<missing>", image->created, "", "", layer_size(layer), {}});
  std::reverse(out.begin(), out.end());
  if (!out.empty()) {
    out.front().id = image->id;
    out.front().tags = image->repo_tags;
  }
  return out;
}

Usage Images::usage() const {
  Usage usage;
  usage.layers_size = layers_.total_size();
  usage.total_size = usage.layers_size + content_.total_size();
  std::set<std::string> active, chains, blobs;
  if (users_)
    for (const ImageUser& user : users_()) active.insert(user.image_id);
  for (const auto& [id, record] : records_) {
    ++usage.images;
    if (!active.contains(id)) continue;
    ++usage.active;
    blobs.insert(id);
    for (const ImagePtr& v : record->variants) {
      chains.insert(v->chain_ids.begin(), v->chain_ids.end());
      blobs.insert(v->manifest.digest);
      blobs.insert(v->config_digest);
      for (const Descriptor& layer : v->layers) blobs.insert(layer.digest);
    }
    for (const Attachment& a : record->attachments)
      for (const Descriptor& blob : a.manifest.layers) blobs.insert(blob.digest);
  }
  std::int64_t needed = 0;
  for (const std::string& digest : blobs) needed += content_.find_size(digest).value_or(0);
  for (const std::string& chain : chains)
    if (const storage::Layer* layer = layers_.find(chain)) needed += layer->size;
  usage.reclaimable = std::max<std::int64_t>(0, usage.total_size - needed);
  return usage;
}

}  // namespace gantry::image
