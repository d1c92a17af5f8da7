#include "image/digest.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::image {

bool is_valid_digest(std::string_view text) {
  if (text.starts_with("sha256:")) return text.size() == 7 + 64 && is_lower_hex(text.substr(7));
  if (text.starts_with("sha512:")) return text.size() == 7 + 128 && is_lower_hex(text.substr(7));
  return false;
}

void validate_digest(std::string_view text) {
  if (is_valid_digest(text)) return;
  if (!text.starts_with("sha256:") && !text.starts_with("sha512:") && text.find(':') != std::string_view::npos)
    throw Error(Errc::invalid_argument, "unsupported digest algorithm");
  const std::size_t wanted = text.starts_with("sha512:") ? 135 : 71;
  throw Error(Errc::invalid_argument,
              text.size() != wanted ? "invalid checksum digest length" : "invalid checksum digest format");
}

std::string digest_hex(std::string_view digest) {
  validate_digest(digest);
  if (!digest.starts_with("sha256:"))
    throw Error(Errc::invalid_argument, fmt::format("unsupported digest algorithm: {}", digest.substr(0, 6)));
  return std::string(digest.substr(7));
}

std::string digest_of(std::string_view bytes) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), out, &size, EVP_sha256(), nullptr) != 1)
    throw Error(Errc::internal, "sha256 failed");
  return "sha256:" + render_hex({reinterpret_cast<const char*>(out), size});
}

std::string short_digest(std::string_view digest) {
  const auto colon = digest.find(':');
  if (colon != std::string_view::npos) digest.remove_prefix(colon + 1);
  return std::string(digest.substr(0, 12));
}

}  // namespace gantry::image
