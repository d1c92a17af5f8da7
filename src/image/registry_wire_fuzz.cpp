#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "base/text.hpp"
#include "image/auth.hpp"
#include "image/registry_client.hpp"
#include "image/registry_wire.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace image = gantry::image;

// What a registry answers: challenges, links, error documents, addresses; and what clients send for it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const image::Challenge& challenge : image::parse_challenges(text))
    require(challenge.scheme == gantry::to_lower(challenge.scheme), "schemes are lower case");
  const std::string page = image::next_page(text);
  require(page.empty() || page.starts_with("tags/list?"), "a further page is of the same repository's tags");
  require(page.find_first_of("\r\n \"<>") == std::string::npos, "a page is one word");
  image::HttpResponse response;
  response.status = size > 0 ? 400 + data[0] : 500;
  response.body = text;
  require(image::read_remote_error(response).text.size() <= 4096, "bounded error texts");
  if (const auto url = image::parse_url(text)) {
    require(url->scheme == "http" || url->scheme == "https", "only these schemes");
    require(!url->host.empty() && url->rest.starts_with('/'), "host and path");
  }
  (void)image::is_insecure_host(text, {"10.0.0.0/8", "fd00::/8", text}, {});
  (void)image::decode_auth_header(text);
  (void)image::decode_auth_header(gantry::base64_encode(text));
  (void)image::decode_auth_config_header(gantry::base64_encode(text));
  accepts([&] { (void)image::parse_auth(text); });
  return 0;
}
