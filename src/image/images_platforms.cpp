#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "db/sqlite.hpp"
#include "image/digest.hpp"
#include "image/images.hpp"
#include "image/record.hpp"

namespace gantry::image {

Task<std::vector<Removed>> Images::remove_platforms(std::string ref, std::vector<Platform> platforms, bool force) {
  if (!force)
    throw Error(Errc::invalid_argument,
                "Content will be removed from all images referencing this variant. Use —-force to force delete.");
  std::vector<Removed> removed;
  {
    const auto lock = co_await writes_.lock("image.remove_platforms");
    removed = co_await async::shielded(remove_platforms_locked(std::move(ref), std::move(platforms)));
  }
  co_await async::shielded(sweep_after_removal());
  co_return removed;
}

Task<std::vector<Removed>> Images::remove_platforms_locked(std::string ref, std::vector<Platform> platforms) {
  const Found found = resolve(ref);
  if (found.record == nullptr) (void)get(ref);  // throws
  const std::string id = found.record->row.id;
  const auto users = users_of(id);
  std::vector<ImagePtr> going;
  for (const Platform& platform : platforms) {
    const PlatformMatcher matcher = PlatformMatcher::only(platform);
    ImagePtr match;
    for (const ImagePtr& variant : found.record->variants)
      if (variant->available && matcher.rank(variant->platform) == 0) match = variant;
    if (!match)
      throw Error(Errc::not_found,
                  fmt::format("failed to delete platform {} for image {}: image with reference {} was found but does "
                              "not provide the specified platform ({})",
                              render_platform(platform), id, ref, render_platform(platform)));
    for (const ImageUser& user : users)
      if (user.running && user.top_chain == match->top_chain())
        throw Error(Errc::conflict,
                    fmt::format("conflict: unable to delete {} (cannot be forced) - image is being used by running "
                                "container {}",
                                short_digest(id), user.container_id.substr(0, 12)));
    going.push_back(std::move(match));
  }
  std::vector<Removed> out;
  for (const ImagePtr& variant : going)
    for (Removed& r : co_await remove_manifest(variant->manifest.digest)) out.push_back(std::move(r));
  co_return out;
}

/// Takes a platform's content from every image that has it.
Task<std::vector<Removed>> Images::remove_manifest(std::string digest) {
  std::vector<Removed> out;
  std::vector<std::string> ids;
  const auto is_it = [&](const ImagePtr& v) { return v->manifest.digest == digest; };
  for (const auto& [id, record] : records_)
    if (std::any_of(record->variants.begin(), record->variants.end(), is_it)) ids.push_back(id);
  for (const std::string& id : ids) {
    Record& record = *records_.at(id);
    if (record.variants.size() == 1) {
      const std::vector<std::string> names(record.names.begin(), record.names.end());
      for (Removed& r : co_await untag(id, names)) out.push_back(std::move(r));
      for (Removed& r : co_await delete_record(id)) out.push_back(std::move(r));
      continue;
    }
    co_await lanes_.db.run([&db = db_, id, digest] { db::remove_image_manifest(db, id, digest); });
    FAILPOINT("image.remove_platform.after_row");
    std::erase_if(record.variants, is_it);
    std::erase_if(record.attachments, [&](const Attachment& a) { return attestation_subject(a.descriptor) == digest; });
    out.push_back({"", digest});
  }
  co_return out;
}

}  // namespace gantry::image
