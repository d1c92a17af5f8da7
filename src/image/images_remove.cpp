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
  std::vector<Removed> removed;
  {
    const auto lock = co_await writes_.lock("image.remove");
    removed = co_await async::shielded(remove_locked(std::move(ref), options));
  }
  const bool deleted = std::any_of(removed.begin(), removed.end(), [](const Removed& r) { return !r.deleted.empty(); });
  if (deleted) co_await async::shielded(sweep_after_removal());
  co_return removed;
}

Task<std::vector<Removed>> Images::remove_locked(std::string ref, RemoveOptions options) {
  const Found found = resolve(ref);
  if (found.record == nullptr) (void)get(ref);  // throws
  Record& record = *found.record;
  const std::string id = record.row.id;
  const auto users = users_of(id);

  if (!found.name) {
    if (!options.force && !is_one_repository(record.names))
      conflict(short_digest(id), true, "image is referenced in multiple repositories");
    check_users_of_id(id, users, options.force);
    auto out = co_await untag(id, {record.names.begin(), record.names.end()});
    for (Removed& r : co_await delete_record(id)) out.push_back(std::move(r));
    co_return out;
  }

  // A tag takes the digest names of its repository along, once it is the last tag there.
  const std::string name = found.name->canonical();
  std::vector<std::string> going;
  bool last_tag = true;
  for (const std::string& other : record.names) {
    const auto parsed = parse_reference(other);
    if (parsed.name() != found.name->name() || other == name) continue;
    if (!parsed.tag.empty()) last_tag = false;
  }
  if (record.names.contains(name)) going.push_back(name);
  if (last_tag || !found.name->digest.empty())
    for (const std::string& other : record.names) {
      const auto parsed = parse_reference(other);
      const bool of_repository = parsed.name() == found.name->name() && other != name;
      // "repo@digest" names everything of the repository that points here.
      if (of_repository && (!parsed.digest.empty() || !found.name->digest.empty())) going.push_back(other);
    }
  const bool last = going.size() == record.names.size();
  if (last && !users.empty() && !options.force)
    conflict(found.name->familiar(), true,
             fmt::format("container {} is using its referenced image {}", users.front().container_id.substr(0, 12),
                         short_digest(id)));
  auto out = co_await untag(id, going);
  // A running container keeps the image: it lives on without a name.
  const bool running = std::any_of(users.begin(), users.end(), [](const ImageUser& u) { return u.running; });
  if (last && !running)
    for (Removed& r : co_await delete_record(id)) out.push_back(std::move(r));
  co_return out;
}

Task<std::vector<Removed>> Images::untag(std::string id, std::vector<std::string> names) {
  std::vector<Removed> out;
  if (names.empty()) co_return out;
  co_await lanes_.db.run([&db = db_, names] { db::remove_image_names(db, names); });
  FAILPOINT("image.remove.after_untag");
  Record& record = *records_.at(id);
  for (const std::string& name : names) {
    names_.erase(name);
    record.names.erase(name);
    const std::string familiar = parse_reference(name).familiar();
    out.push_back({familiar, ""});
    publish("untag", id, familiar, first_choice(record).get());
  }
  refresh(record);
  co_return out;
}

Task<std::vector<Removed>> Images::delete_record(std::string id) {
  co_await lanes_.db.run([&db = db_, id] { db::remove_image(db, id); });
  FAILPOINT("image.remove.after_row");
  const auto it = records_.find(id);
  const ImagePtr image = first_choice(*it->second);
  for (const std::string& name : it->second->names) names_.erase(name);
  records_.erase(it);
  publish("delete", id, id, image.get());
  std::vector<Removed> out;
  out.push_back({"", id});
  co_return out;
}

/// The image is gone whatever comes of its files: what stays behind is swept later.
Task<void> Images::sweep_after_removal() {
  try {
    (void)co_await collect_garbage();
  } catch (const Error& e) {
    log::warning("sweeping after an image removal: {}", e.log_detail());
  }
}

Task<PruneReport> Images::prune(Filters filters) {
  filters.require_known({"dangling", "label", "label!", "until"});
  const bool dangling_only = filters.flag("dangling").value_or(true);
  const std::optional<Timestamp> until = read_until(filters);
  PruneReport report;
  {
    const auto lock = co_await writes_.lock("image.prune");
    std::set<std::string> in_use;
    if (users_)
      for (const ImageUser& user : users_()) in_use.insert(user.image_id);
    std::vector<std::string> doomed;
    for (const auto& [id, record] : records_) {
      const ImagePtr image = first_choice(*record);
      if (in_use.contains(id) || (dangling_only && !record->names.empty())) continue;
      if (!matches_label_filters(filters, *image) || (until && image->created > *until)) continue;
      doomed.push_back(id);
    }
    for (const std::string& id : doomed) {
      const auto it = records_.find(id);
      if (it == records_.end() || !users_of(id).empty()) continue;  // a container came while we waited
      const std::vector<std::string> names(it->second->names.begin(), it->second->names.end());
      for (Removed& r : co_await untag(id, names)) report.removed.push_back(std::move(r));
      for (Removed& r : co_await delete_record(id)) report.removed.push_back(std::move(r));
    }
  }
  report.space_reclaimed = co_await async::shielded(collect_garbage());
  report.space_reclaimed += co_await content_.remove_unfinished();
  events_.publish("image", "prune", "", {{"reclaimed", std::to_string(report.space_reclaimed)}});
  co_return report;
}

std::set<std::string> Images::used_chains() const {
  std::set<std::string> chains;
  for (const auto& [id, record] : records_)
    for (const ImagePtr& v : record->variants) chains.insert(v->chain_ids.begin(), v->chain_ids.end());
  if (users_)
    for (const ImageUser& user : users_())
      if (!user.top_chain.empty()) chains.insert(user.top_chain);
  return chains;
}

std::set<std::string> Images::used_blobs() const {
  std::set<std::string> blobs;
  for (const auto& [id, record] : records_) {
    blobs.insert(id);
    for (const ImagePtr& v : record->variants) {
      blobs.insert(v->manifest.digest);
      blobs.insert(v->config_digest);
      for (const Descriptor& layer : v->layers) blobs.insert(layer.digest);
    }
    for (const Attachment& a : record->attachments) {
      blobs.insert(a.descriptor.digest);
      blobs.insert(a.manifest.config.digest);
      for (const Descriptor& blob : a.manifest.layers) blobs.insert(blob.digest);
    }
  }
  // A layer that is kept for a container can be rebuilt only while its blob is there.
  for (const storage::Layer& layer : layers_.list()) blobs.insert(layer.blob_digest);
  return blobs;
}

Task<std::int64_t> Images::collect_garbage() {
  // What is in use is settled before the first layer goes: no image may be added until the last has gone.
  const auto lock = co_await writes_.lock("image.collect_garbage");
  std::int64_t freed = co_await layers_.remove_unreferenced(used_chains());
  FAILPOINT("image.collect.after_layers");
  freed += co_await content_.remove_unreferenced(used_blobs());
  co_return freed;
}

}  // namespace gantry::image
