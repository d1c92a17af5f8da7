#include "api/image_json.hpp"

#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/time.hpp"
#include "json/json.hpp"
#include "model/model.hpp"

namespace gantry::api {
namespace {

constexpr ApiVersion kNoPlaceholders{1, 43};
constexpr ApiVersion kNoVirtualSize{1, 44};
constexpr ApiVersion kNoContainerConfig{1, 45};
constexpr ApiVersion kDescriptors{1, 48};
constexpr ApiVersion kImageConfigOnly{1, 50};
constexpr ApiVersion kContainerCounts{1, 51};
constexpr ApiVersion kNoEmptyFields{1, 52};

using json::Array;
using json::Object;
using json::Value;

Array strings(const std::vector<std::string>& list) { return Array(list.begin(), list.end()); }

std::int64_t unix_seconds(Timestamp t) {
  return std::chrono::floor<std::chrono::seconds>(t.time_since_epoch()).count();
}

Object render_manifest_summary(const image::ManifestSummary& m) {
  Object out{{"ID", m.descriptor.digest},
             {"Descriptor", descriptor_json(m.descriptor)},
             {"Available", m.available},
             {"Size", Object{{"Content", m.content_size}, {"Total", m.content_size + m.unpacked_size}}},
             {"Kind", m.attestation ? "attestation"
                      : m.unknown   ? "unknown"
                                    : "image"}};
  if (m.attestation) {
    out.emplace("AttestationData", Object{{"For", m.attestation_for}});
    return out;
  }
  if (m.unknown) return out;
  out.emplace("ImageData", Object{{"Platform", platform_json(m.platform)},
                                  {"Size", Object{{"Unpacked", m.unpacked_size}}},
                                  {"Containers", strings(m.containers)}});
  return out;
}

Array render_manifests(const std::vector<image::ManifestSummary>& manifests) {
  Array out;
  for (const auto& m : manifests) out.push_back(render_manifest_summary(m));
  return out;
}

/// The parts of the config that belong to an image; older clients were sent a container's whole config.
Object render_config(const model::ContainerConfig& config, ApiVersion version) {
  Value all = model::encode(config);
  if (version < kImageConfigOnly) return std::move(all.get_object());
  Object out;
  for (const char* key : {"User", "ExposedPorts", "Env", "Cmd", "Healthcheck", "ArgsEscaped", "Volumes", "WorkingDir",
                          "Entrypoint", "OnBuild", "Labels", "StopSignal", "Shell"}) {
    Value* v = all.get_object().if_contains(key);
    if (v == nullptr) continue;
    const bool empty = v->is_null() || (v->is_string() && v->get_string().empty());
    if (version >= kNoEmptyFields && empty) continue;
    out.emplace(key, std::move(*v));
  }
  return out;
}

}  // namespace

Object platform_json(const image::Platform& platform) {
  Object out{{"architecture", platform.architecture}, {"os", platform.os}};
  if (!platform.os_version.empty()) out.emplace("os.version", platform.os_version);
  if (!platform.variant.empty()) out.emplace("variant", platform.variant);
  return out;
}

Object descriptor_json(const image::Descriptor& d) {
  Object out{{"mediaType", d.media_type}, {"digest", d.digest}, {"size", d.size}};
  if (!d.annotations.empty()) {
    Object annotations;
    for (const auto& [key, value] : d.annotations) annotations.emplace(key, value);
    out.emplace("annotations", std::move(annotations));
  }
  if (d.platform) out.emplace("platform", platform_json(*d.platform));
  return out;
}

Object render_image_summary(const image::ImageSummary& summary, ApiVersion version) {
  const image::Image& image = *summary.image;
  Value labels = nullptr;
  if (image.config.Labels) {
    Object object;
    for (const auto& [key, value] : *image.config.Labels) object.emplace(key, value);
    labels = std::move(object);
  }
  Array tags = strings(image.repo_tags), digests = strings(image.repo_digests);
  if (version < kNoPlaceholders) {
    if (tags.empty()) tags.push_back("<none>:<none>");
    if (digests.empty()) digests.push_back("<none>@<none>");
  }
  Object out{{"Containers", version < kContainerCounts ? -1 : summary.containers},
             {"Created", unix_seconds(image.created)},
             {"Id", image.id},
             {"Labels", std::move(labels)},
             {"ParentId", ""},
             {"RepoDigests", std::move(digests)},
             {"RepoTags", std::move(tags)},
             {"SharedSize", summary.shared_size},
             {"Size", image.size()}};
  if (version >= kDescriptors) out.emplace("Descriptor", descriptor_json(image.descriptor));
  if (!summary.manifests.empty()) out.emplace("Manifests", render_manifests(summary.manifests));
  if (version < kNoVirtualSize) out.emplace("VirtualSize", image.size());
  return out;
}

Object render_image(const image::Image& image, const std::optional<std::vector<image::ManifestSummary>>& manifests,
                    ApiVersion version) {
  const bool terse = version >= kNoEmptyFields;
  Object out{{"Id", image.id}, {"RepoTags", strings(image.repo_tags)}, {"RepoDigests", strings(image.repo_digests)}};
  if (!terse) out.emplace("Parent", "");
  if (!terse || !image.comment.empty()) out.emplace("Comment", image.comment);
  if (image.created != Timestamp{}) out.emplace("Created", render_rfc3339_nano(image.created));
  if (!terse) out.emplace("DockerVersion", "");
  if (!terse || !image.author.empty()) out.emplace("Author", image.author);
  if (version < kNoContainerConfig) {
    out.emplace("Container", "");
    out.emplace("ContainerConfig", model::encode(model::ContainerConfig{}));
  }
  out.emplace("Config", render_config(image.config, version));
  out.emplace("Architecture", image.platform.architecture);
  if (!image.platform.variant.empty()) out.emplace("Variant", image.platform.variant);
  out.emplace("Os", image.platform.os);
  if (!image.platform.os_version.empty()) out.emplace("OsVersion", image.platform.os_version);
  out.emplace("Size", image.size());
  if (version < kNoVirtualSize) out.emplace("VirtualSize", image.size());
  if (!terse) out.emplace("GraphDriver", Object{{"Data", nullptr}, {"Name", "overlayfs"}});
  out.emplace("RootFS", Object{{"Type", "layers"}, {"Layers", strings(image.diff_ids)}});
  out.emplace("Metadata", Object{{"LastTagTime", render_rfc3339_nano(image.last_tagged)}});
  if (version >= kDescriptors) out.emplace("Descriptor", descriptor_json(image.descriptor));
  if (manifests) out.emplace("Manifests", render_manifests(*manifests));
  return out;
}

Array render_history(const std::vector<image::HistoryItem>& history) {
  Array out;
  for (const auto& item : history) {
    Value tags = nullptr;
    if (!item.tags.empty()) tags = strings(item.tags);
    out.push_back(Object{{"Comment", item.comment},
                         {"Created", unix_seconds(item.created)},
                         {"CreatedBy", item.created_by},
                         {"Id", item.id},
                         {"Size", item.size},
                         {"Tags", std::move(tags)}});
  }
  return out;
}

Array render_removed(const std::vector<image::Removed>& removed) {
  Array out;
  for (const auto& r : removed)
    out.push_back(r.untagged.empty() ? Object{{"Deleted", r.deleted}} : Object{{"Untagged", r.untagged}});
  return out;
}

Array render_statements(const std::vector<image::Statement>& statements) {
  Array out;
  for (const image::Statement& s : statements) {
    Object item{{"Descriptor", descriptor_json(s.descriptor)}, {"PredicateType", s.predicate_type}};
    if (!s.text.empty()) item.emplace("Statement", json::parse(s.text));
    out.push_back(std::move(item));
  }
  return out;
}

image::Platform parse_platform_parameter(const std::string& text) {
  return parse_platform_parameter(json::parse(text));
}

std::vector<image::Platform> parse_platforms_parameter(const std::string& text) {
  const Value value = json::parse(text);
  std::vector<image::Platform> out;
  if (!value.is_array()) {
    out.push_back(parse_platform_parameter(value));
    return out;
  }
  for (const Value& item : value.get_array()) out.push_back(parse_platform_parameter(item));
  return out;
}

image::Platform parse_platform_parameter(const Value& value) {
  if (!value.is_object()) throw Error(Errc::invalid_argument, "invalid platform: expected a JSON object");
  image::Platform out;
  const auto read = [&](const char* key, std::string& to) {
    const Value* v = json::find(value.get_object(), key);
    if (v == nullptr || v->is_null()) return;
    if (!v->is_string())
      throw Error(Errc::invalid_argument, std::string("invalid platform: ") + key + " is not a string");
    to = v->get_string();
  };
  read("os", out.os);
  read("architecture", out.architecture);
  read("variant", out.variant);
  read("os.version", out.os_version);
  if (out.os.empty() || out.architecture.empty())
    throw Error(Errc::invalid_argument, "invalid platform: os and architecture are required");
  return out;
}

}  // namespace gantry::api
