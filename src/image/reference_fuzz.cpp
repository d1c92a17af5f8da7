#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "image/digest.hpp"
#include "image/platform.hpp"
#include "image/reference.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace image = gantry::image;

// Names of images as clients type them, platforms and the patterns of filters.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto reference = image::try_parse_reference(text)) {
    const auto again = image::try_parse_reference(reference->canonical());
    require(again && *again == *reference, "the canonical form means the same");
    const auto familiar = image::try_parse_reference(reference->familiar());
    require(familiar && *familiar == *reference, "the familiar form means the same");
    require(reference->with_default_tag().tag.size() + reference->digest.size() > 0, "a tag or a digest");
  }
  accepts([&] {
    const std::string once = image::render_platform(image::normalize(image::parse_platform(text)));
    require(image::render_platform(image::normalize(image::parse_platform(once))) == once, "normal is normal");
  });
  const std::size_t cut = text.find('\n');
  if (cut != std::string::npos)
    accepts([&] { (void)image::matches_pattern(text.substr(0, cut), text.substr(cut + 1)); });
  if (image::is_valid_digest(text)) accepts([&] { require(image::digest_hex(text).size() == 64, "sha256"); });
  return 0;
}
