#include "image/archive_save.hpp"

#include <map>
#include <set>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "json/json.hpp"
#include "storage/tar_writer.hpp"
#include "sys/file.hpp"

namespace gantry::image {
namespace {

struct Chosen {
  ImagePtr image;  // the best platform
  std::vector<Reference> names;
};

/// What the archive will hold, settled before the first byte.
struct Plan {
  std::map<std::string, std::int64_t> blobs;  // by digest
  std::string index_json;
  std::string manifest_json;
  BlobHold hold;
};

void choose(const Images& images, const std::string& ref, const std::optional<Platform>& platform,
            std::vector<Chosen>& chosen) {
  ImagePtr image = images.get(ref, platform);
  std::vector<Reference> names;
  const auto parsed = try_parse_reference(ref);
  // An ID or a digest exports no name; a repository without a tag all of its tags.
  const bool named = parsed && parsed->digest.empty() && !ref.starts_with("sha256:") &&
                     (!parsed->tag.empty() || images.find(parsed->with_default_tag().familiar()) == image);
  if (named) names.push_back(parsed->with_default_tag());
  const auto same =
      std::find_if(chosen.begin(), chosen.end(), [&](const Chosen& c) { return c.image->id == image->id; });
  if (same == chosen.end()) {
    chosen.push_back({std::move(image), std::move(names)});
    return;
  }
  for (Reference& name : names)
    if (std::find(same->names.begin(), same->names.end(), name) == same->names.end())
      same->names.push_back(std::move(name));
}

std::vector<Chosen> choose_all(const Images& images, const SaveRequest& request) {
  std::optional<Platform> platform;
  if (!request.platforms.empty()) platform = request.platforms.front();
  std::vector<Chosen> chosen;
  for (const std::string& ref : request.names) {
    const auto parsed = try_parse_reference(ref);
    bool expanded = false;
    if (parsed && parsed->tag.empty() && parsed->digest.empty()) {
      ListOptions all;
      for (const ImageSummary& summary : images.list(all))
        for (const std::string& tag : summary.image->repo_tags)
          if (parse_reference(tag).name() == parsed->name()) {
            choose(images, tag, platform, chosen);
            expanded = true;
          }
    }
    if (!expanded) choose(images, ref, platform, chosen);
  }
  return chosen;
}

void add_blob(Plan& plan, const ContentStore& content, const std::string& digest) {
  const auto size = content.find_size(digest);
  if (!size) throw Error(Errc::not_found, fmt::format("content digest {}: not found", digest));
  plan.blobs[digest] = *size;
  plan.hold.add(digest);
}

std::string blob_path(const std::string& digest) { return "blobs/sha256/" + digest_hex(digest); }

void add_variant(Plan& plan, const ContentStore& content, const Image& image) {
  add_blob(plan, content, image.manifest.digest);
  add_blob(plan, content, image.config_digest);
  for (const Descriptor& layer : image.layers) add_blob(plan, content, layer.digest);
}

/// The index, what is here of it (of `platforms` only, unless that is empty), and what is attested of that.
void add_image(Plan& plan, const Images& images, const ContentStore& content, const Image& image,
               const std::vector<Platform>& platforms) {
  add_blob(plan, content, image.id);
  std::set<std::string> saved;
  const auto add = [&](const Image& variant) {
    add_variant(plan, content, variant);
    saved.insert(variant.manifest.digest);
  };
  if (platforms.empty()) {
    for (const ImagePtr& variant : images.list_variants(image.id)) add(*variant);
  } else {
    for (const Platform& platform : platforms) add(*images.get(image.id, platform));
  }
  for (const Attachment& a : images.list_attachments(image.id)) {
    const std::string subject = attestation_subject(a.descriptor);
    if (!subject.empty() && !saved.contains(subject)) continue;
    add_blob(plan, content, a.descriptor.digest);
    add_blob(plan, content, a.manifest.config.digest);
    for (const Descriptor& blob : a.manifest.layers) add_blob(plan, content, blob.digest);
  }
}

Plan make_plan(Context& context, const SaveRequest& request) {
  Plan plan;
  plan.hold = context.content().hold();
  Index index;
  index.media_type = kOciIndex;
  json::Array saved;
  for (const Chosen& chosen : choose_all(context.images, request)) {
    const Image& image = *chosen.image;
    if (!image.available)
      throw Error(Errc::corrupted, fmt::format("image {} is damaged: pull it again", short_digest(image.id)));
    // With one platform the archive holds that platform's image, as an image of its own; with several, their part of
    // the index.
    const bool single = request.platforms.size() == 1;
    const Descriptor root = single ? image.manifest : image.descriptor;
    if (single) add_variant(plan, context.content(), image);
    else add_image(plan, context.images, context.content(), image, request.platforms);
    json::Array tags, layers;
    for (const Descriptor& layer : image.layers) layers.push_back(json::Value(blob_path(layer.digest)));
    for (const Reference& name : chosen.names) {
      Descriptor d = root;
      d.annotations["io.containerd.image.name"] = name.canonical();
      d.annotations["org.opencontainers.image.ref.name"] = name.tag;
      index.manifests.push_back(std::move(d));
      tags.push_back(json::Value(name.familiar()));
    }
    if (chosen.names.empty()) index.manifests.push_back(root);
    json::Value tags_value = tags.empty() ? json::Value(nullptr) : json::Value(std::move(tags));
    saved.push_back(json::Object{{"Config", blob_path(image.config_digest)},
                                 {"RepoTags", std::move(tags_value)},
                                 {"Layers", std::move(layers)}});
  }
  plan.index_json = render_index(index);
  plan.manifest_json = json::render(std::move(saved));
  return plan;
}

void write_directory(storage::TarWriter& tar, const std::string& name) {
  storage::TarEntry entry;
  entry.type = storage::TarType::directory;
  entry.name = name;
  entry.mode = 0755;
  tar.write_header(entry);
}

void write_header(storage::TarWriter& tar, const std::string& name, std::int64_t size) {
  storage::TarEntry entry;
  entry.name = name;
  entry.mode = 0644;
  entry.size = static_cast<std::uint64_t>(size);
  tar.write_header(entry);
}

void write_text(storage::TarWriter& tar, const std::string& name, const std::string& text) {
  write_header(tar, name, std::int64_t(text.size()));
  tar.write_data(text);
  tar.end_data();
}

void write_blob(storage::TarWriter& tar, const sys::Path& file, const std::string& name, std::int64_t size) {
  const sys::Fd fd = sys::open_file(file, O_RDONLY);
  write_header(tar, name, size);
  std::string buffer(256 << 10, '\0');
  for (std::int64_t done = 0; done < size;) {
    const ssize_t got =
        ::pread(fd.get(), buffer.data(), std::min<std::size_t>(buffer.size(), std::size_t(size - done)), done);
    if (got < 0) throw Error::from_errno(errno, fmt::format("read {}", file.string()));
    if (got == 0) throw Error(Errc::corrupted, fmt::format("blob {} is shorter than it was", name));
    tar.write_data({buffer.data(), std::size_t(got)});
    done += got;
  }
  tar.end_data();
}

struct BlobFile {
  std::string name;
  sys::Path file;
  std::int64_t size = 0;
};

void write_archive_blocking(const std::vector<BlobFile>& blobs, const std::string& index, const std::string& manifest,
                            storage::ByteChannel& out) {
  const storage::ByteSink sink = [&out](std::string_view bytes) { out.write_blocking(bytes); };
  storage::TarWriter tar(sink);
  write_directory(tar, "blobs/");
  write_directory(tar, "blobs/sha256/");
  for (const BlobFile& blob : blobs) write_blob(tar, blob.file, blob.name, blob.size);
  write_text(tar, "index.json", index);
  write_text(tar, "manifest.json", manifest);
  write_text(tar, "oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  tar.finish();
}

Task<void> produce(Context& context, std::shared_ptr<Plan> plan, std::shared_ptr<storage::ByteChannel> out) {
  std::vector<BlobFile> blobs;
  for (const auto& [digest, size] : plan->blobs)
    blobs.push_back({blob_path(digest), context.content().path(digest), size});
  try {
    co_await context.archives.run(
        [blobs, plan, out] { write_archive_blocking(blobs, plan->index_json, plan->manifest_json, *out); });
    out->close();
  } catch (const Error&) {
    out->fail(std::current_exception());
  }
}

}  // namespace

Task<std::shared_ptr<storage::ByteChannel>> save(Context& context, SaveRequest request) {
  auto plan = std::make_shared<Plan>(make_plan(context, request));
  for (const Chosen& chosen : choose_all(context.images, request))
    context.publish("save", chosen.image->id, chosen.image->id, chosen.image.get());
  auto out = std::make_shared<storage::ByteChannel>(4 << 20);
  context.tasks.spawn("image save", produce(context, std::move(plan), out));
  co_return out;
}

}  // namespace gantry::image
