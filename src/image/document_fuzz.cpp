#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "image/image_config.hpp"
#include "image/manifest.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace image = gantry::image;

// Manifests, indexes and image configs as registries and archives bring them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  accepts([&] {
    const image::Document document = image::parse_document(text);
    if (const auto* index = std::get_if<image::Index>(&document)) {
      require(index->manifests.size() <= image::kMaxIndexEntries, "a bounded index");
      (void)image::select_manifests(*index, image::PlatformMatcher::host());
      const image::Index again = image::parse_index(image::render_index(*index));
      require(again.manifests.size() == index->manifests.size(), "an index survives rendering");
    } else {
      const auto& manifest = std::get<image::Manifest>(document);
      require(manifest.layers.size() <= image::kMaxLayers, "a bounded manifest");
      const image::Manifest again = image::parse_manifest(image::render_manifest(manifest));
      require(again.layers == manifest.layers && again.config == manifest.config, "a manifest survives rendering");
    }
  });
  accepts([&] {
    const image::ImageConfig config = image::parse_image_config(text);
    require(image::chain_ids(config.diff_ids).size() == config.diff_ids.size(), "a chain for each layer");
    const image::ImageConfig again = image::parse_image_config(image::render_image_config(config));
    require(again.diff_ids == config.diff_ids && again.history.size() == config.history.size(),
            "a config survives rendering");
  });
  return 0;
}
