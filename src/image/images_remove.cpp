#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "db/sqlite.hpp"
#include "image/digest.hpp"
#include "image/images.hpp"
#include "image/prune_filter.hpp"
#include "image/record.hpp"

namespace gantry::image {
namespace {

[[noreturn]] void conflict(const std::string& what, bool forcible, const std::string& why) {
  throw Error(Errc::conflict, fmt::format("conflict: unable to delete {} ({}) - {}", what,
                                          forcible ? "must be forced" : "cannot be forced", why));
}

/// Whether the names belong to one repository, so that an ID stands for all of them.
bool is_one_repository(const std::set<std::string>& names) {
  std::set<std::string> repositories;
  for (const std::string& name : names)
    if (const auto ref = try_parse_reference(name)) repositories.insert(ref->name());
  return repositories.size() <= 1;
}

void check_users_of_id(const std::string& id, const std::vector<ImageUser>& users, bool force) {
  for (const ImageUser& user : users)
    if (user.running)
      conflict(short_digest(id), false,
               fmt::format("image is being used by running container {}", user.container_id.substr(0, 12)));
  if (!users.empty() && !force)
    conflict(short_digest(id), true,
             fmt::format("image is being used by stopped container {}", users.front().container_id.substr(0, 12)));
}

}  // namespace

Task<std::vector<Removed>> Images::remove(std::string ref, RemoveOptions options) {
  if (trim(ref).empty()) throw Error(Errc::invalid_argument, "image name cannot be blank");
  auto lock = co_await writes_.lock("image.remove");
  Doomed doomed = plan_removal(ref, options);
  PruneReport report = co_await async::shielded(carry_out(std::move(doomed), std::move(lock)));
  co_return std::move(report.removed);
}

Images::Doomed Images::plan_removal(const std::string& ref, const RemoveOptions& options) const {
  const Found found = resolve(ref);
  if (found.record == nullptr) (void)get(ref);  // throws
  const Record& record = *found.record;
  const std::string id = record.row.id;
  const auto users = users_of(id);
  Doomed doomed;

  if (!found.name) {
    if (!options.force && !is_one_repository(record.names))
      conflict(short_digest(id), true, "image is referenced in multiple repositories");
    check_users_of_id(id, users, options.force);
    doomed.add(record);
    return doomed;
  }

  // A tag takes the digest names of its repository along, once it is the last tag there.
  const std::string name = found.name->canonical();
  bool last_tag = true;
  for (const std::string& other : record.names) {
    const auto parsed = parse_reference(other);
    if (parsed.name() != found.name->name() || other == name) continue;
    if (!parsed.tag.empty()) last_tag = false;
  }
  if (record.names.contains(name)) doomed.names.push_back(name);
  if (last_tag || !found.name->digest.empty())
    for (const std::string& other : record.names) {
      const auto parsed = parse_reference(other);
      const bool of_repository = parsed.name() == found.name->name() && other != name;
      // "repo@digest" names everything of the repository that points here.
      if (of_repository && (!parsed.digest.empty() || !found.name->digest.empty())) doomed.names.push_back(other);
    }
  const bool last = doomed.names.size() == record.names.size();
  if (last && !users.empty() && !options.force)
    conflict(found.name->familiar(), true,
             fmt::format("container {} is using its referenced image {}", users.front().container_id.substr(0, 12),
                         short_digest(id)));
  // A running container keeps the image: it lives on without a name.
  const bool running = std::any_of(users.begin(), users.end(), [](const ImageUser& u) { return u.running; });
  if (last && !running) doomed.images.push_back(id);
  else doomed.content = false;
  return doomed;
}

/// Removes rows in one transaction, then what they stood for; so a removal is whole or has not been. Gives `lock`, of
/// the index, back in between.
/// Requires  to be shielded: what the transaction removed has to go.
Task<PruneReport> Images::carry_out(Doomed doomed, async::Mutex::Guard lock) {
  storage::LayerRemoval layers;
  BlobRemoval blobs;
  if (doomed.content) {
    layers = layers_.begin_removal(used_chains(doomed));
    blobs = content_.begin_removal(used_blobs(doomed));
  }
  db::ImageRemoval rows;
  rows.names = doomed.names;
  rows.images = doomed.images;
  for (const auto& [id, record] : records_)
    for (const ImagePtr& v : record->variants)
      if (doomed.manifests.contains(v->manifest.digest) && !doomed.has(*record))
        rows.manifests.push_back({id, v->manifest.digest, "", 0});
  for (const storage::Layer& layer : layers.layers) rows.layers.push_back(layer.chain_id);
  for (const auto& [digest, size] : blobs.blobs) rows.blobs.push_back(digest);
  try {
    if (!rows.empty()) co_await lanes_.db.run([&db = db_, rows] { db::remove_images(db, rows); });
  } catch (const Error&) {
    content_.cancel_removal(blobs);
    layers_.cancel_removal(layers);
    throw;
  }
  FAILPOINT("image.remove.after_rows");
  PruneReport report;
  report.removed = forget(doomed);
  lock.unlock();
  report.space_reclaimed = co_await remove_content(std::move(layers), std::move(blobs), doomed.resumable);
  co_return report;
}

/// Makes memory follow the rows, and tells.
std::vector<Removed> Images::forget(const Doomed& doomed) {
  std::vector<Removed> out;
  std::set<std::string> touched;
  for (const std::string& name : doomed.names) {
    const auto known = names_.find(name);
    const std::string id = known->second;
    names_.erase(known);
    Record& record = *records_.at(id);
    record.names.erase(name);
    touched.insert(id);
    const std::string familiar = parse_reference(name).familiar();
    out.push_back({familiar, ""});
    publish("untag", id, familiar, first_choice(record).get());
  }
  for (const std::string& id : doomed.images) {
    const auto it = records_.find(id);
    const ImagePtr image = first_choice(*it->second);
    records_.erase(it);
    touched.erase(id);
    publish("delete", id, id, image.get());
    out.push_back({"", id});
  }
  for (const std::string& digest : doomed.manifests) {
    for (auto& [id, record] : records_) {
      const auto taken = [&](const ImagePtr& v) { return v->manifest.digest == digest; };
      if (std::erase_if(record->variants, taken) == 0) continue;
      std::erase_if(record->attachments,
                    [&](const Attachment& a) { return attestation_subject(a.descriptor) == digest; });
      out.push_back({"", digest});
    }
  }
  for (const std::string& id : touched) refresh(*records_.at(id));
  return out;
}

/// The images are gone whatever comes of their files: what stays behind is swept at the next start.
Task<std::int64_t> Images::remove_content(storage::LayerRemoval layers, BlobRemoval blobs, bool resumable) {
  const std::int64_t bytes = layers.bytes + blobs.bytes;
  try {
    co_await content_.end_removal(std::move(blobs), resumable);
    FAILPOINT("image.remove.after_blobs");
    co_await layers_.end_removal(std::move(layers));
  } catch (const Error& e) {
    log::warning("sweeping after an image removal: {}", e.log_detail());
  }
  co_return bytes;
}

Images::Doomed Images::plan_prune(const Filters& filters) const {
  const bool dangling_only = filters.flag("dangling").value_or(true);
  const std::optional<Timestamp> until = read_until(filters);
  std::set<std::string> in_use;
  if (users_)
    for (const ImageUser& user : users_()) in_use.insert(user.image_id);
  Doomed doomed;
  for (const auto& [id, record] : records_) {
    const ImagePtr image = first_choice(*record);
    if (in_use.contains(id) || (dangling_only && !record->names.empty())) continue;
    if (!matches_label_filters(filters, *image) || (until && image->created > *until)) continue;
    doomed.add(*record);
  }
  return doomed;
}

Task<PruneReport> Images::prune(Filters filters) {
  filters.require_known({"dangling", "label", "label!", "until"});
  auto lock = co_await writes_.lock("image.prune");
  Doomed doomed = plan_prune(filters);
  PruneReport report = co_await async::shielded(carry_out(std::move(doomed), std::move(lock)));
  report.space_reclaimed += co_await content_.remove_unfinished();
  events_.publish("image", "prune", "", {{"reclaimed", std::to_string(report.space_reclaimed)}});
  co_return report;
}

std::set<std::string> Images::used_chains(const Doomed& doomed) const {
  std::set<std::string> chains;
  for (const auto& [id, record] : records_) {
    if (doomed.has(*record)) continue;
    for (const ImagePtr& v : record->variants)
      if (!doomed.manifests.contains(v->manifest.digest)) chains.insert(v->chain_ids.begin(), v->chain_ids.end());
  }
  if (users_)
    for (const ImageUser& user : users_())
      if (!user.top_chain.empty()) chains.insert(user.top_chain);
  return chains;
}

std::set<std::string> Images::used_blobs(const Doomed& doomed) const {
  std::set<std::string> blobs;
  for (const auto& [id, record] : records_) {
    if (doomed.has(*record)) continue;
    blobs.insert(id);
    for (const ImagePtr& v : record->variants) {
      if (doomed.manifests.contains(v->manifest.digest)) continue;
      blobs.insert(v->manifest.digest);
      blobs.insert(v->config_digest);
      for (const Descriptor& layer : v->layers) blobs.insert(layer.digest);
    }
    for (const Attachment& a : record->attachments) {
      if (doomed.manifests.contains(attestation_subject(a.descriptor))) continue;
      blobs.insert(a.descriptor.digest);
      blobs.insert(a.manifest.config.digest);
      for (const Descriptor& blob : a.manifest.layers) blobs.insert(blob.digest);
    }
  }
  // A layer that is kept for a container can be rebuilt only while its blob is there.
  for (const storage::Layer& layer : layers_.list()) blobs.insert(layer.blob_digest);
  return blobs;
}

Task<std::int64_t> Images::collect_garbage() { return sweep(false); }

Task<std::int64_t> Images::collect_interrupted() { return sweep(true); }

Task<std::int64_t> Images::sweep(bool resumable) {
  auto lock = co_await writes_.lock("image.sweep");
  Doomed nothing;
  nothing.resumable = resumable;
  PruneReport report = co_await async::shielded(carry_out(std::move(nothing), std::move(lock)));
  co_return report.space_reclaimed;
}

}  // namespace gantry::image
