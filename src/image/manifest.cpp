#include "image/manifest.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "json/json.hpp"

namespace gantry::image {
namespace {

constexpr std::size_t kMaxAnnotations = 4096;
constexpr std::string_view kSchema1 = "application/vnd.docker.distribution.manifest.v1";
constexpr std::string_view kSchema1Text =
    "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. "
    "Suggest the author of the image to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "
    "More information at https://docs.docker.com/go/deprecated-image-specs/";

template <class... Args>
[[noreturn]] void invalid(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(Errc::invalid_argument, "invalid manifest: " + fmt::format(text, std::forward<Args>(args)...));
}

std::string get_string(const json::Object& object, std::string_view key, const std::string& where) {
  const json::Value* v = object.if_contains(key);
  if (v == nullptr || v->is_null()) return {};
  if (!v->is_string()) invalid("{}.{} is not a string", where, key);
  return std::string(v->get_string());
}

const json::Array* find_array(const json::Object& object, std::string_view key) {
  const json::Value* v = object.if_contains(key);
  if (v == nullptr || v->is_null()) return nullptr;
  if (!v->is_array()) invalid("{} is not an array", key);
  return &v->get_array();
}

std::map<std::string, std::string> get_annotations(const json::Object& object, const std::string& where) {
  std::map<std::string, std::string> out;
  const json::Value* v = object.if_contains("annotations");
  if (v == nullptr || v->is_null()) return out;
  if (!v->is_object() || v->get_object().size() > kMaxAnnotations) invalid("{}.annotations", where);
  for (const auto& member : v->get_object()) {
    if (!member.value().is_string()) invalid("{}.annotations is not a map of strings", where);
    out.emplace(member.key(), member.value().get_string());
  }
  return out;
}

Platform get_platform(const json::Object& object, const std::string& where) {
  return {get_string(object, "os", where), get_string(object, "architecture", where),
          get_string(object, "variant", where), get_string(object, "os.version", where)};
}

Descriptor get_descriptor(const json::Value& value, const std::string& where) {
  if (!value.is_object()) invalid("{} is not an object", where);
  const json::Object& object = value.get_object();
  Descriptor d;
  d.media_type = get_string(object, "mediaType", where);
  d.digest = get_string(object, "digest", where);
  d.artifact_type = get_string(object, "artifactType", where);
  if (!is_valid_digest(d.digest)) invalid("{}.digest: {} is not a digest", where, quote(d.digest.substr(0, 80)));
  const json::Value* size = object.if_contains("size");
  if (size == nullptr || !size->is_int64() || size->get_int64() < 0) invalid("{}.size", where);
  d.size = size->get_int64();
  d.annotations = get_annotations(object, where);
  if (const json::Value* p = object.if_contains("platform"); p != nullptr && p->is_object())
    d.platform = get_platform(p->get_object(), where + ".platform");
  if (const json::Value* data = object.if_contains("data"); data != nullptr && !data->is_null()) {
    const auto bytes = data->is_string() ? base64_decode(std::string_view(data->get_string())) : std::nullopt;
    if (!bytes || std::int64_t(bytes->size()) != d.size ||
        (d.digest.starts_with("sha256:") && digest_of(*bytes) != d.digest))
      invalid("{}.data does not match its digest", where);
  }
  return d;
}

std::string_view without_parameters(std::string_view content_type) {
  return trim(content_type.substr(0, content_type.find(';')));
}

enum class Of { image, anything };

bool is_image_config_type(std::string_view type) { return type == kDockerConfig || type == kOciConfig; }

Manifest read_manifest(const json::Object& object, std::string media_type, Of of) {
  Manifest out;
  out.media_type = std::move(media_type);
  const json::Value* config = object.if_contains("config");
  if (config == nullptr) invalid("config is missing");
  out.config = get_descriptor(*config, "config");
  if (of == Of::image && !is_image_config_type(out.config.media_type))
    throw Error(Errc::invalid_argument,
                fmt::format("Encountered remote \"{}\"(artifact) when fetching", out.config.media_type));
  if (out.config.size > std::int64_t(kMaxConfigBytes)) invalid("config.size: more than {} bytes", kMaxConfigBytes);
  const json::Array* layers = find_array(object, "layers");
  if (layers == nullptr) invalid("layers is missing");
  if (layers->size() > kMaxLayers) invalid("layers: more than {}", kMaxLayers);
  for (std::size_t i = 0; i < layers->size(); ++i) {
    const std::string where = fmt::format("layers[{}]", i);
    out.layers.push_back(get_descriptor((*layers)[i], where));
    if (of == Of::image && !is_layer_type(out.layers.back().media_type))
      invalid("{}.mediaType: {} is not a layer that can be unpacked", where, quote(out.layers.back().media_type));
  }
  out.annotations = get_annotations(object, "manifest");
  return out;
}

Index read_index(const json::Object& object, std::string media_type) {
  Index out;
  out.media_type = std::move(media_type);
  const json::Array* manifests = find_array(object, "manifests");
  if (manifests == nullptr) invalid("manifests is missing");
  if (manifests->size() > kMaxIndexEntries) invalid("manifests: more than {}", kMaxIndexEntries);
  for (std::size_t i = 0; i < manifests->size(); ++i)
    out.manifests.push_back(get_descriptor((*manifests)[i], fmt::format("manifests[{}]", i)));
  out.annotations = get_annotations(object, "index");
  return out;
}

json::Object render_descriptor(const Descriptor& d) {
  json::Object out{{"mediaType", d.media_type}, {"digest", d.digest}, {"size", d.size}};
  if (!d.annotations.empty()) {
    json::Object annotations;
    for (const auto& [key, value] : d.annotations) annotations.emplace(key, value);
    out.emplace("annotations", std::move(annotations));
  }
  if (d.platform) {
    json::Object platform{{"architecture", d.platform->architecture}, {"os", d.platform->os}};
    if (!d.platform->os_version.empty()) platform.emplace("os.version", d.platform->os_version);
    if (!d.platform->variant.empty()) platform.emplace("variant", d.platform->variant);
    out.emplace("platform", std::move(platform));
  }
  return out;
}

void add_annotations(json::Object& out, const std::map<std::string, std::string>& annotations) {
  if (annotations.empty()) return;
  json::Object object;
  for (const auto& [key, value] : annotations) object.emplace(key, value);
  out.emplace("annotations", std::move(object));
}

}  // namespace

bool is_index_type(std::string_view type) { return type == kDockerManifestList || type == kOciIndex; }
bool is_manifest_type(std::string_view type) { return type == kDockerManifest || type == kOciManifest; }

bool is_layer_type(std::string_view type) {
  constexpr std::array kTypes = {
      kDockerLayerGzip, kDockerLayer,  kOciLayer,
      kOciLayerGzip,    kOciLayerZstd, std::string_view("application/vnd.docker.image.rootfs.diff.tar.zstd")};
  return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

namespace {

Document parse(std::string_view bytes, std::string_view content_type, Of of) {
  content_type = without_parameters(content_type);
  if (content_type.starts_with(kSchema1)) throw Error(Errc::invalid_argument, std::string(kSchema1Text));
  if (bytes.size() > kMaxManifestBytes) invalid("larger than {} bytes", kMaxManifestBytes);
  const json::Value value = with_context("manifest", [&] { return json::parse(bytes); });
  if (!value.is_object()) invalid("not an object");
  const json::Object& object = value.get_object();
  if (const json::Value* version = object.if_contains("schemaVersion"); version != nullptr && version->is_int64()) {
    if (version->get_int64() == 1) throw Error(Errc::invalid_argument, std::string(kSchema1Text));
    if (version->get_int64() != 2) invalid("schemaVersion {} is not supported", version->get_int64());
  }
  std::string media_type = get_string(object, "mediaType", "manifest");
  const bool has_manifests = object.contains("manifests");
  const bool has_layers = object.contains("layers") || object.contains("config");
  if (object.contains("fsLayers")) throw Error(Errc::invalid_argument, std::string(kSchema1Text));
  if (has_manifests && has_layers) invalid("it has both layers and manifests");
  if (!has_manifests && !has_layers) invalid("it has neither layers nor manifests");
  const bool typed = is_index_type(content_type) || is_manifest_type(content_type);
  if (media_type.empty()) media_type = typed ? content_type : (has_manifests ? kOciIndex : kOciManifest);
  if (typed && media_type != content_type)
    invalid("mediaType is {} but it was sent as {}", quote(media_type), quote(content_type));
  if (has_manifests ? !is_index_type(media_type) : !is_manifest_type(media_type))
    invalid("mediaType {} does not fit its content", quote(media_type));
  if (has_manifests) return read_index(object, std::move(media_type));
  return read_manifest(object, std::move(media_type), of);
}

Manifest only_manifest(Document document) {
  if (auto* manifest = std::get_if<Manifest>(&document)) return std::move(*manifest);
  invalid("an index where an image manifest was expected");
}

}  // namespace

Document parse_document(std::string_view bytes, std::string_view content_type) {
  return parse(bytes, content_type, Of::image);
}

Manifest parse_manifest(std::string_view bytes, std::string_view content_type) {
  return only_manifest(parse(bytes, content_type, Of::image));
}

Manifest parse_any_manifest(std::string_view bytes, std::string_view content_type) {
  return only_manifest(parse(bytes, content_type, Of::anything));
}

Index parse_index(std::string_view bytes, std::string_view content_type) {
  Document document = parse_document(bytes, content_type);
  if (auto* index = std::get_if<Index>(&document)) return std::move(*index);
  invalid("an image manifest where an index was expected");
}

std::string render_manifest(const Manifest& manifest) {
  json::Array layers;
  for (const auto& layer : manifest.layers) layers.push_back(render_descriptor(layer));
  json::Object out{{"schemaVersion", 2},
                   {"mediaType", manifest.media_type},
                   {"config", render_descriptor(manifest.config)},
                   {"layers", std::move(layers)}};
  add_annotations(out, manifest.annotations);
  return json::render(std::move(out));
}

std::string render_index(const Index& index) {
  json::Array manifests;
  for (const auto& manifest : index.manifests) manifests.push_back(render_descriptor(manifest));
  json::Object out{{"schemaVersion", 2}, {"mediaType", index.media_type}, {"manifests", std::move(manifests)}};
  add_annotations(out, index.annotations);
  return json::render(std::move(out));
}

bool is_image(const Manifest& manifest) {
  return is_image_config_type(manifest.config.media_type) &&
         std::all_of(manifest.layers.begin(), manifest.layers.end(),
                     [](const Descriptor& layer) { return is_layer_type(layer.media_type); });
}

std::string attestation_subject(const Descriptor& descriptor) {
  const auto it = descriptor.annotations.find("vnd.docker.reference.digest");
  return it == descriptor.annotations.end() ? std::string() : it->second;
}

bool is_attestation(const Descriptor& descriptor) {
  const auto it = descriptor.annotations.find("vnd.docker.reference.type");
  if (it != descriptor.annotations.end() && it->second == "attestation-manifest") return true;
  return descriptor.platform && descriptor.platform->os == "unknown" && descriptor.platform->architecture == "unknown";
}

std::vector<Descriptor> select_manifests(const Index& index, const PlatformMatcher& matcher) {
  constexpr int kUnknown = 1 << 20;
  std::multimap<int, Descriptor> found;  // equal keys keep their order
  for (const Descriptor& d : index.manifests) {
    if (is_attestation(d) || (!d.media_type.empty() && !is_manifest_type(d.media_type))) continue;
    if (!d.platform) found.emplace(kUnknown, d);
    else if (const auto rank = matcher.rank(*d.platform)) found.emplace(*rank, d);
  }
  std::vector<Descriptor> out;
  for (auto& [rank, d] : found) out.push_back(std::move(d));
  return out;
}

}  // namespace gantry::image
