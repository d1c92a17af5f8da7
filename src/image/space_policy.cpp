#include "image/space_policy.hpp"

#include <algorithm>
#include <cerrno>
#include <set>

#include <sys/statvfs.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"

namespace gantry::image {
namespace {

Task<std::int64_t> free_space(async::Lanes& lanes, sys::Path directory) {
  co_return co_await lanes.quick.run([directory] {
    struct statvfs st{};
    if (::statvfs(directory.c_str(), &st) != 0) throw Error::from_errno(errno, "statvfs " + directory.string());
    return static_cast<std::int64_t>(st.f_bavail) * static_cast<std::int64_t>(st.f_frsize);
  });
}

}  // namespace

Task<int> keep_space(Images& images, async::Lanes& lanes, sys::Path data_root, std::int64_t keep_free) {
  int removed = 0;
  if (keep_free <= 0) co_return removed;
  std::set<std::string> kept;  // that could not be removed
  while (co_await free_space(lanes, data_root) < keep_free) {
    ImagePtr oldest;
    for (const ImageSummary& summary : images.list({})) {
      const ImagePtr& image = summary.image;
      if (summary.containers > 0 || kept.contains(image->id)) continue;
      const auto age = [](const Image& i) { return std::max(i.added, i.last_tagged); };
      if (!oldest || age(*image) < age(*oldest)) oldest = image;
    }
    if (!oldest) break;
    try {
      RemoveOptions options;
      options.force = true;
      (void)co_await images.remove(oldest->id, options);
      ++removed;
      log::warning("image {} was removed to keep {} free",
                   oldest->repo_tags.empty() ? oldest->id : oldest->repo_tags[0], render_human_size(keep_free));
    } catch (const Error& e) {
      if (e.code() == Errc::cancelled) throw;
      kept.insert(oldest->id);
    }
  }
  co_return removed;
}

}  // namespace gantry::image
