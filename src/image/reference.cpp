#include "image/reference.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"

namespace gantry::image {
namespace {

constexpr std::string_view kDefaultDomain = "docker.io";
constexpr std::string_view kLegacyDomain = "index.docker.io";
constexpr std::string_view kOfficialPrefix = "library/";
constexpr std::size_t kMaxPath = 255;

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alnum(char c) { return is_lower(c) || is_upper(c) || is_digit(c); }

[[noreturn]] void fail(std::string_view detail = {}) {
  throw Error(Errc::invalid_argument, detail.empty() ? std::string("invalid reference format")
                                                     : fmt::format("invalid reference format: {}", detail));
}

/// [a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?
bool is_host_component(std::string_view text) {
  return !text.empty() && is_alnum(text.front()) && is_alnum(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_alnum(c) || c == '-'; });
}

bool is_host(std::string_view text) {
  if (text.starts_with('[')) {
    return text.size() > 2 && text.ends_with(']') && std::all_of(text.begin() + 1, text.end() - 1, [](char c) {
             return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':';
           });
  }
  for (;;) {
    const auto dot = text.find('.');
    if (!is_host_component(text.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool is_domain(std::string_view text) {
  const auto colon = text.starts_with('[') ? text.find("]:") : text.rfind(':');
  if (colon == std::string_view::npos) return is_host(text);
  const std::size_t host_end = text.starts_with('[') ? colon + 1 : colon;
  const std::string_view port = text.substr(host_end + 1);
  return is_host(text.substr(0, host_end)) && !port.empty() && std::all_of(port.begin(), port.end(), is_digit);
}

/// [a-z0-9]+((?:[._]|__|[-]+)[a-z0-9]+)*
bool is_path_component(std::string_view text) {
  std::size_t i = 0;
  const auto word = [&] {
    const std::size_t from = i;
    while (i < text.size() && (is_lower(text[i]) || is_digit(text[i]))) ++i;
    return i > from;
  };
  if (!word()) return false;
  while (i < text.size()) {
    if (text[i] == '.') {
      ++i;
    } else if (text[i] == '_') {
      ++i;
      if (i < text.size() && text[i] == '_') ++i;
    } else if (text[i] == '-') {
      while (i < text.size() && text[i] == '-') ++i;
    } else {
      return false;
    }
    if (!word()) return false;
  }
  return true;
}

bool is_path(std::string_view text) {
  for (;;) {
    const auto slash = text.find('/');
    if (!is_path_component(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

/// [A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}
bool looks_like_digest(std::string_view text) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  bool at_start = true;
  for (const char c : text.substr(0, colon)) {
    if (at_start ? !(is_lower(c) || is_upper(c))
                 : !(is_alnum(c) || std::string_view("-_+.").find(c) != std::string_view::npos))
      return false;
    at_start = !is_alnum(c);
  }
  const std::string_view hex = text.substr(colon + 1);
  return !at_start && hex.size() >= 32 && std::all_of(hex.begin(), hex.end(), [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  });
}

/// Splits the registry off. The first segment is one if it could not be a Docker Hub user.
std::pair<std::string, std::string> split_domain(std::string_view text) {
  const auto slash = text.find('/');
  const std::string_view first = text.substr(0, slash);
  std::string domain(kDefaultDomain);
  std::string_view rest = text;
  if (slash != std::string_view::npos &&
      (first == "localhost" || first.find_first_of(".:") != std::string_view::npos || to_lower(first) != first)) {
    rest = text.substr(slash + 1);
    domain = first == kLegacyDomain ? kDefaultDomain : first;
  }
  if (domain == kDefaultDomain && rest.find('/') == std::string_view::npos)
    return {domain, std::string(kOfficialPrefix) + std::string(rest)};
  return {domain, std::string(rest)};
}

}  // namespace

bool is_valid_tag(std::string_view text) {
  const auto word = [](char c) { return is_alnum(c) || c == '_'; };
  return !text.empty() && text.size() <= 128 && word(text.front()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return word(c) || c == '.' || c == '-'; });
}

Reference parse_reference(std::string_view text) {
  if (text.size() == 64 && is_lower_hex(text))
    throw Error(Errc::invalid_argument,
                fmt::format("invalid repository name ({}), cannot specify 64-byte hexadecimal strings", text));
  if (text.size() > 2048) fail();
  auto [domain, remainder] = split_domain(text);
  const std::string_view remote = std::string_view(remainder).substr(0, remainder.find(':'));
  if (to_lower(remote) != remote &&
      std::all_of(remote.begin(), remote.end(), [](char c) { return c > ' ' && c < 127; }))
    fail(fmt::format("repository name ({}) must be lowercase", remote));

  Reference out;
  std::string_view rest = remainder;
  if (const auto at = rest.find('@'); at != std::string_view::npos) {
    out.digest = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (!looks_like_digest(out.digest)) fail();
  }
  if (const auto colon = rest.find(':'); colon != std::string_view::npos) {
    out.tag = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
    if (!is_valid_tag(out.tag)) fail();
  }
  if (!is_domain(domain) || !is_path(rest)) fail();
  if (rest.size() > kMaxPath)
    throw Error(Errc::invalid_argument, fmt::format("repository name must not be more than {} characters", kMaxPath));
  if (!out.digest.empty()) validate_digest(out.digest);
  out.domain = std::move(domain);
  out.path = rest;
  return out;
}

std::optional<Reference> try_parse_reference(std::string_view text) {
  try {
    return parse_reference(text);
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return std::nullopt;
  }
}

std::string Reference::familiar_name() const {
  if (domain != kDefaultDomain) return name();
  if (path.starts_with(kOfficialPrefix) && path.find('/', kOfficialPrefix.size()) == std::string::npos)
    return path.substr(kOfficialPrefix.size());
  return path;
}

namespace {
std::string with_suffixes(std::string base, const Reference& ref) {
  if (!ref.tag.empty()) base += ":" + ref.tag;
  if (!ref.digest.empty()) base += "@" + ref.digest;
  return base;
}
}  // namespace

std::string Reference::canonical() const { return with_suffixes(name(), *this); }
std::string Reference::familiar() const { return with_suffixes(familiar_name(), *this); }

Reference Reference::with_default_tag() const {
  Reference out = *this;
  if (out.tag.empty() && out.digest.empty()) out.tag = "latest";
  return out;
}

Reference Reference::with_tag(std::string_view new_tag) const {
  Reference out = *this;
  out.tag = new_tag;
  out.digest.clear();
  return out;
}

Reference Reference::with_digest(std::string_view new_digest) const {
  Reference out = *this;
  out.tag.clear();
  out.digest = new_digest;
  return out;
}

namespace {

[[noreturn]] void bad_pattern() { throw Error(Errc::invalid_argument, "syntax error in pattern"); }

/// One character of a `[…]` class, or of a literal: resolves `\x`.
char class_char(std::string_view pattern, std::size_t& at) {
  if (at < pattern.size() && pattern[at] == '\\') ++at;
  if (at >= pattern.size()) bad_pattern();
  return pattern[at++];
}

/// Reads the class that starts after '['; leaves `at` after ']'.
bool matches_class(std::string_view pattern, std::size_t& at, char c) {
  const bool negated = at < pattern.size() && pattern[at] == '^';
  if (negated) ++at;
  bool found = false;
  for (bool first = true; first || at >= pattern.size() || pattern[at] != ']'; first = false) {
    if (at >= pattern.size() || (first && (pattern[at] == ']' || pattern[at] == '-'))) bad_pattern();
    const char low = class_char(pattern, at);
    char high = low;
    if (at < pattern.size() && pattern[at] == '-') {
      ++at;
      high = class_char(pattern, at);
    }
    found = found || (low <= c && c <= high);
  }
  ++at;
  return found != negated;
}

void check_pattern(std::string_view pattern) {
  for (std::size_t at = 0; at < pattern.size();) {
    const char c = pattern[at++];
    if (c == '[') matches_class(pattern, at, 'x');
    if (c == '\\' && at++ >= pattern.size()) bad_pattern();
  }
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  check_pattern(pattern);
  // Greedy with one point to come back to: the last `*`. It cannot pass a "/", so each retry moves one character on.
  std::size_t p = 0, t = 0;
  std::size_t star = std::string_view::npos, star_text = 0;
  for (;;) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      star_text = t;
      continue;
    }
    bool matched = false;
    if (p == pattern.size()) {
      if (t == text.size()) return true;
    } else if (t < text.size()) {
      std::size_t next = p + 1;
      if (pattern[p] == '?') {
        matched = text[t] != '/';
      } else if (pattern[p] == '[') {
        matched = matches_class(pattern, next, text[t]) && text[t] != '/';
      } else {
        if (pattern[p] == '\\') next = p + 2;
        matched = pattern[next - 1] == text[t];
      }
      if (matched) {
        p = next;
        ++t;
        continue;
      }
    }
    if (star == std::string_view::npos || star_text >= text.size() || text[star_text] == '/') return false;
    p = star;
    t = ++star_text;
  }
}

bool familiar_matches(std::string_view pattern, const Reference& name) {
  return matches_pattern(pattern, name.familiar()) || matches_pattern(pattern, name.familiar_name()) ||
         matches_pattern(pattern, name.name()) || matches_pattern(pattern, name.canonical());
}

}  // namespace gantry::image
