#pragma once

#include <string>
#include <string_view>

namespace gantry::image {

/// Throws invalid_argument unless `text` is "sha256:" with 64, or "sha512:" with 128 lower-case hexadecimal digits.
void validate_digest(std::string_view text);
bool is_valid_digest(std::string_view text);

/// The 64 digits of a sha256 digest: the name of its blob. Throws invalid_argument for anything else; sha512 is
/// recognised but not stored ("unsupported digest algorithm").
std::string digest_hex(std::string_view digest);

/// "sha256:…" of `bytes`.
std::string digest_of(std::string_view bytes);

/// What clients show of an image or layer: the first twelve digits.
std::string short_digest(std::string_view digest);

}  // namespace gantry::image
