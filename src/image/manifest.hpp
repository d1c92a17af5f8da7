#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "image/platform.hpp"

namespace gantry::image {

inline constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
inline constexpr std::string_view kDockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
inline constexpr std::string_view kDockerLayer = "application/vnd.docker.image.rootfs.diff.tar";
inline constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kOciLayer = "application/vnd.oci.image.layer.v1.tar";
inline constexpr std::string_view kOciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr std::string_view kOciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Bounds on what a registry or an archive may make us hold (security.md §6.3).
inline constexpr std::size_t kMaxManifestBytes = 4 << 20;
inline constexpr std::size_t kMaxConfigBytes = 8 << 20;
inline constexpr std::size_t kMaxStatementBytes = 64 << 20;  // of an attestation
inline constexpr std::size_t kMaxIndexEntries = 1024;
inline constexpr std::size_t kMaxLayers = 127;

/// Points to content: what it is, its digest and its exact size in bytes.
struct Descriptor {
  std::string media_type;
  std::string digest;
  std::int64_t size = 0;
  std::optional<Platform> platform;
  std::map<std::string, std::string> annotations;
  std::string artifact_type;

  bool operator==(const Descriptor&) const = default;
};

/// One image for one platform.
struct Manifest {
  std::string media_type;
  Descriptor config;
  std::vector<Descriptor> layers;  // lowest first
  std::map<std::string, std::string> annotations;
};

/// The same image for several platforms.
struct Index {
  std::string media_type;
  std::vector<Descriptor> manifests;
  std::map<std::string, std::string> annotations;
};

using Document = std::variant<Manifest, Index>;

bool is_index_type(std::string_view media_type);
bool is_manifest_type(std::string_view media_type);
/// A layer that we can unpack. Foreign ("nondistributable") layers are not: their URLs would let a manifest choose whom
/// we talk to.
bool is_layer_type(std::string_view media_type);

/// Reads a manifest or an index, and refuses what is neither, is both, or is beyond the bounds: descriptors whose
/// digest is malformed or whose size is negative, more than kMaxLayers layers, foreign layers, artifacts.
/// `content_type` is what the transport called it (parameters are ignored), or empty; the document's own mediaType must
/// agree with it. Throws invalid_argument; the text names the field.
Document parse_document(std::string_view bytes, std::string_view content_type = {});

/// As parse_document, but an index is an error too.
Manifest parse_manifest(std::string_view bytes, std::string_view content_type = {});
/// As parse_manifest, but of anything: an attestation, an artifact. Its layers are blobs of any type.
Manifest parse_any_manifest(std::string_view bytes, std::string_view content_type = {});
Index parse_index(std::string_view bytes, std::string_view content_type = {});

std::string render_manifest(const Manifest& manifest);
std::string render_index(const Index& index);

/// Whether a manifest is of something that can be unpacked and run: its config and layers are of such types.
bool is_image(const Manifest& manifest);

/// The image manifest that an attestation in an index is about; empty if it says none.
std::string attestation_subject(const Descriptor& descriptor);

/// Whether a descriptor in an index carries provenance or an SBOM rather than an image.
bool is_attestation(const Descriptor& descriptor);

/// The entries of `index` that fit, best first; entries of equal rank keep their order. Entries without a platform come
/// last: only their config tells what they are.
std::vector<Descriptor> select_manifests(const Index& index, const PlatformMatcher& matcher);

}  // namespace gantry::image
