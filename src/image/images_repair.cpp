#include "base/error.hpp"
#include "base/log.hpp"
#include "image/images.hpp"
#include "image/record.hpp"

namespace gantry::image {

std::vector<std::string> Images::list_ids() const {
  std::vector<std::string> out;
  for (const auto& [id, record] : records_) out.push_back(id);
  return out;
}

bool Images::is_available(const std::string& id) const {
  const auto it = records_.find(id);
  return it != records_.end() && std::all_of(it->second->variants.begin(), it->second->variants.end(),
                                             [](const ImagePtr& v) { return v->available; });
}

std::vector<Descriptor> Images::missing_blobs(const std::string& id) const {
  const auto it = records_.find(id);
  std::vector<Descriptor> out;
  if (it == records_.end()) return out;
  std::set<std::string> seen;
  const auto need = [&](const Descriptor& d) {
    if (!d.digest.empty() && !content_.contains(d.digest) && seen.insert(d.digest).second) out.push_back(d);
  };
  need(it->second->descriptor());
  for (const Descriptor& manifest : it->second->wanted) need(manifest);
  for (const ImagePtr& v : it->second->variants) {
    Descriptor config;
    config.digest = v->config_digest;
    config.size = -1;
    need(config);
    for (const Descriptor& layer : v->layers) need(layer);
  }
  return out;
}

std::vector<Descriptor> Images::wanted_manifests(const std::string& id) const {
  const auto it = records_.find(id);
  return it == records_.end() ? std::vector<Descriptor>{} : it->second->wanted;
}

std::vector<std::string> Images::repositories_of_image(const std::string& id) const {
  std::set<std::string> out;
  if (const auto it = records_.find(id); it != records_.end()) {
    for (const std::string& name : it->second->names)
      if (const auto ref = try_parse_reference(name)) out.insert(ref->name());
    for (const ImagePtr& v : it->second->variants)
      for (const Descriptor& layer : v->layers)
        for (const std::string& source : blob_sources(layer.digest)) out.insert(source);
  }
  return {out.begin(), out.end()};
}

std::vector<std::string> Images::repositories_of(const std::string& digest) const {
  std::vector<std::string> out = blob_sources(digest);
  for (const auto& [id, record] : records_) {
    const auto has = [&](const ImagePtr& v) {
      return v->manifest.digest == digest || v->config_digest == digest ||
             std::any_of(v->layers.begin(), v->layers.end(), [&](const Descriptor& l) { return l.digest == digest; });
    };
    if (id != digest && std::none_of(record->variants.begin(), record->variants.end(), has)) continue;
    for (std::string& name : repositories_of_image(id))
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(std::move(name));
  }
  return out;
}

Task<void> Images::reload(std::string id) {
  const auto lock = co_await writes_.lock("image.reload");
  const auto it = records_.find(id);
  if (it == records_.end()) co_return;
  std::unique_ptr<Record> fresh;
  try {
    fresh = co_await load_record(it->second->row, it->second->wanted);
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    log::debug("image {}: {}", id, e.message());
    co_return;
  }
  std::unique_ptr<Record>& slot = records_.at(id);
  if (fresh->variants.empty()) co_return;
  fresh->names = slot->names;
  slot = std::move(fresh);
  refresh(*slot);
}

std::int64_t Images::damaged() const {
  std::int64_t count = 0;
  for (const auto& [id, record] : records_) count += is_available(id) && missing_blobs(id).empty() ? 0 : 1;
  return count;
}

}  // namespace gantry::image
