#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gantry::image {

/// The name of an image in a registry, in full: "docker.io/library/alpine:3.20". Tag and digest may be absent.
/// Grammar: distribution's reference package, as every Docker client knows it (engine-api.md §5.1).
struct Reference {
  std::string domain;  // registry host, with port: "docker.io", "localhost:5000"
  std::string path;    // repository within it: "library/alpine"
  std::string tag;     // empty: none given
  std::string digest;  // "sha256:…"; empty: none given

  /// "docker.io/library/alpine"
  std::string name() const { return domain + "/" + path; }
  /// What people write for name(): "alpine", "someone/tool", "quay.io/x/y".
  std::string familiar_name() const;
  /// name() with tag and digest.
  std::string canonical() const;
  /// familiar_name() with tag and digest.
  std::string familiar() const;
  /// The same with ":latest" where neither tag nor digest is given.
  Reference with_default_tag() const;
  /// The same repository with this tag and no digest.
  Reference with_tag(std::string_view new_tag) const;
  /// The same repository with this digest and no tag.
  Reference with_digest(std::string_view new_digest) const;

  bool operator==(const Reference&) const = default;
};

/// Reads what a user typed and completes it (registry, "library/"). Never adds a tag.
/// Throws invalid_argument with Docker's texts: "invalid reference format",
/// "invalid reference format: repository name (library/UPPER) must be lowercase",
/// "invalid repository name (<64 hex>), cannot specify 64-byte hexadecimal strings", …
Reference parse_reference(std::string_view text);

/// parse_reference, or nullopt where it would throw.
std::optional<Reference> try_parse_reference(std::string_view text);

/// Whether `text` may stand as a tag: [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}.
bool is_valid_tag(std::string_view text);

/// Go's path.Match, as the `reference` filter of image lists uses it: `*`, `?`, `[a-z]`, `\x`; `*` stops at "/".
/// Throws invalid_argument ("syntax error in pattern") for a malformed pattern.
bool matches_pattern(std::string_view pattern, std::string_view text);

/// Whether the filter `pattern` selects `name`: against the familiar form with and without tag, and the familiar name.
bool familiar_matches(std::string_view pattern, const Reference& name);

}  // namespace gantry::image
