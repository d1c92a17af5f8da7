#include "storage/hash.hpp"

#include <utility>

#include <openssl/evp.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::storage {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (context_ == nullptr || EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) != 1)
    throw Error(Errc::internal, "SHA-256 is not available");
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }
Sha256::Sha256(Sha256&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
Sha256& Sha256::operator=(Sha256&& other) noexcept {
  std::swap(context_, other.context_);
  return *this;
}

void Sha256::update(std::string_view bytes) { EVP_DigestUpdate(context_, bytes.data(), bytes.size()); }

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context_, digest, &size);
  return render_hex({reinterpret_cast<const char*>(digest), size});
}

std::string sha256_digest(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.digest();
}

bool is_sha256_digest(std::string_view text) noexcept {
  constexpr std::string_view kPrefix = "sha256:";
  return text.starts_with(kPrefix) && text.size() == kPrefix.size() + 64 && is_lower_hex(text.substr(kPrefix.size()));
}

std::string digest_hex(std::string_view digest) {
  if (!is_sha256_digest(digest))
    throw Error(Errc::invalid_argument, fmt::format("not a sha256 digest: {}", quote(digest.substr(0, 100))));
  return std::string(digest.substr(7));
}

std::string chain_id(std::string_view parent, std::string_view diff_id) {
  if (parent.empty()) return std::string(diff_id);
  return sha256_digest(fmt::format("{} {}", parent, diff_id));
}

}  // namespace gantry::storage
