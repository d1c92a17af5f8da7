#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "image/digest.hpp"
#include "image/images.hpp"
#include "image/record.hpp"

namespace gantry::image {

Task<std::vector<Removed>> Images::remove_platforms(std::string ref, std::vector<Platform> platforms, bool force) {
  if (!force)
    throw Error(Errc::invalid_argument,
                "Content will be removed from all images referencing this variant. Use —-force to force delete.");
  auto lock = co_await writes_.lock("image.remove_platforms");
  Doomed doomed = plan_platforms(ref, platforms);
  PruneReport report = co_await async::shielded(carry_out(std::move(doomed), std::move(lock)));
  co_return std::move(report.removed);
}

Images::Doomed Images::plan_platforms(const std::string& ref, const std::vector<Platform>& platforms) const {
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
  // Every image loses them that has them; one that has no other goes altogether.
  Doomed doomed;
  for (const ImagePtr& variant : going) doomed.manifests.insert(variant->manifest.digest);
  for (const auto& [_, record] : records_)
    if (!record->variants.empty() &&
        std::all_of(record->variants.begin(), record->variants.end(),
                    [&](const ImagePtr& v) { return doomed.manifests.contains(v->manifest.digest); }))
      doomed.add(*record);
  return doomed;
}

}  // namespace gantry::image
