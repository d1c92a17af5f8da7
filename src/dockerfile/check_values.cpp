#include "dockerfile/check_values.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz0123456789";
constexpr std::string_view kAlnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
constexpr std::size_t kMaxName = 255;

bool made_of(std::string_view text, std::string_view allowed) {
  return text.find_first_not_of(allowed) == std::string_view::npos;
}

bool is_tag(std::string_view tag) {
  return !tag.empty() && tag.size() <= 128 && tag.front() != '.' && tag.front() != '-' &&
         made_of(tag, std::string(kAlnum) + "_.-");
}

bool is_digest(std::string_view digest) {
  const auto [algorithm, hex] = split_once(digest, ':');
  return !algorithm.empty() && made_of(algorithm, std::string(kAlnum) + "+._-") && hex.size() >= 32 &&
         made_of(hex, "0123456789abcdefABCDEF");
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
bool is_path_component(std::string_view part) {
  while (true) {
    const std::size_t end = std::min(part.find_first_not_of(kLower), part.size());
    if (end == 0) return false;
    if (end == part.size()) return true;
    part.remove_prefix(end);
    if (part.starts_with("__")) {
      part.remove_prefix(2);
    } else if (part.front() == '_' || part.front() == '.') {
      part.remove_prefix(1);
    } else if (part.front() == '-') {
      part.remove_prefix(std::min(part.find_first_not_of('-'), part.size()));
    } else {
      return false;
    }
  }
}

bool is_host(std::string_view host) {
  if (host.starts_with('[')) return host.find(']') != std::string_view::npos;
  const auto [name, port] = split_once(host, ':');
  if (name.empty() || !made_of(port, "0123456789")) return false;
  const std::vector<std::string> labels = split(name, '.');
  return std::all_of(labels.begin(), labels.end(), [](const std::string& label) {
    return !label.empty() && label.front() != '-' && label.back() != '-' && made_of(label, std::string(kAlnum) + "-");
  });
}

bool has_word(std::string_view name, const auto& words) {
  const std::vector<std::string> parts = split(to_lower(name), '_');
  return std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
    return std::find(words.begin(), words.end(), part) != words.end();
  });
}

std::string canonical_architecture(std::string_view text) {
  const std::string lower = to_lower(text);
  if (lower == "x86_64" || lower == "x86-64") return "amd64";
  if (lower == "aarch64") return "arm64";
  if (lower == "armhf" || lower == "armel") return "arm";
  if (lower == "i386") return "386";
  return lower;
}

}  // namespace

bool is_image_reference(std::string_view text) {
  const std::size_t at = text.find('@');
  if (at != std::string_view::npos && !is_digest(text.substr(at + 1))) return false;
  std::string_view name = text.substr(0, at);
  const std::size_t slash = name.rfind('/');
  const std::size_t colon = name.rfind(':');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    if (!is_tag(name.substr(colon + 1))) return false;
    name = name.substr(0, colon);
  }
  if (name.empty() || name.size() > kMaxName) return false;
  if (name.size() == 64 && made_of(name, "0123456789abcdef")) return false;  // an ID
  std::vector<std::string> parts = split(name, '/');
  const std::string& first = parts.front();
  const bool has_host = parts.size() > 1 && (first.find_first_of(".:") != std::string::npos || first == "localhost" ||
                                             to_lower(first) != first);
  if (has_host) {
    if (!is_host(first)) return false;
    parts.erase(parts.begin());
  }
  return std::all_of(parts.begin(), parts.end(), is_path_component);
}

bool names_secret(std::string_view name) {
  static constexpr std::array<std::string_view, 10> kSecret = {
      "apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"};
  static constexpr std::array<std::string_view, 3> kOpen = {"public", "file", "version"};
  return has_word(name, kSecret) && !has_word(name, kOpen);
}

std::optional<OsAndArchitecture> read_platform(std::string_view text, std::string_view default_architecture) {
  static constexpr std::array<std::string_view, 10> kArchitectures = {
      "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm"};
  static constexpr std::array<std::string_view, 7> kSystems = {"darwin",  "freebsd", "linux",  "netbsd",
                                                               "openbsd", "wasip1",  "windows"};
  const std::vector<std::string> parts = split(text, '/');
  const std::string allowed = std::string(kAlnum) + "_.-";
  const bool valid = std::all_of(parts.begin(), parts.end(),
                                 [&](const std::string& part) { return !part.empty() && made_of(part, allowed); });
  if (!valid || parts.size() > 3) return std::nullopt;
  const std::string first = to_lower(parts.front());
  if (parts.size() > 1) return OsAndArchitecture{first, canonical_architecture(parts[1])};
  if (std::find(kSystems.begin(), kSystems.end(), first) != kSystems.end())
    return OsAndArchitecture{first, std::string(default_architecture)};
  const std::string architecture = canonical_architecture(first);
  if (std::find(kArchitectures.begin(), kArchitectures.end(), architecture) == kArchitectures.end())
    return std::nullopt;
  return OsAndArchitecture{"linux", architecture};
}

}  // namespace gantry::dockerfile
