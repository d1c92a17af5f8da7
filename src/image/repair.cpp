#include "image/repair.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "storage/tree_compare.hpp"

namespace gantry::image {
namespace {

class Repair {
 public:
  Repair(Context& context, RepairRequest request, DamageSink sink)
      : context_(context),
        request_(std::move(request)),
        sink_(std::move(sink)),
        blobs_(context.content().hold()),
        chains_(context.layers().hold()) {}

  Task<RepairReport> run() {
    for (const storage::Layer& layer : context_.layers().list()) chains_.add(layer.chain_id);
    for (const std::string& digest : context_.content().list()) {
      blobs_.add(digest);
      co_await check_blob(digest);
    }
    co_await check_images();
    mounted_ =
        co_await context_.lanes.quick.run([paths = context_.paths] { return storage::find_mounted_layers(paths); });
    for (const storage::Layer& layer : sorted_layers()) co_await check_layer(layer);
    for (const storage::Problem& problem : co_await context_.layers().check())
      if (problem.subject.starts_with("directory ")) tell({problem.subject, problem.text, problem.repair, false});
    co_return report_;
  }

 private:
  void tell(Damage damage) {
    ++(damage.repaired ? report_.repaired : report_.unrepaired);
    log::warning("{}: {}; {}", damage.subject, damage.text, damage.outcome);
    context_.events.publish("image", "repair", damage.subject,
                            {{"name", damage.subject}, {"damage", damage.text}, {"outcome", damage.outcome}});
    sink_(damage);
  }

  Task<std::string> refetch(std::vector<std::string> repositories, Descriptor blob) {
    return refetch_blob(context_, std::move(repositories), std::move(blob), request_.credentials);
  }

  Task<void> check_blob(std::string digest) {
    const auto size = context_.content().find_size(digest);
    if (!size) co_return;
    ++report_.blobs;
    report_.blob_bytes += *size;
    const std::string wrong = co_await context_.content().examine(digest);
    if (wrong.empty()) co_return;
    const sys::Path kept = co_await context_.content().quarantine(digest);
    FAILPOINT("repair.after_quarantine");
    Descriptor blob;
    blob.digest = digest;
    blob.size = *size;
    const std::string from = co_await refetch(context_.images.repositories_of(digest), blob);
    Damage damage{"blob " + digest, wrong, "", !from.empty()};
    damage.outcome = damage.repaired ? fmt::format("fetched again from {}", from)
                                     : fmt::format("kept as {}; pull or load its image again", kept.string());
    tell(std::move(damage));
  }

  /// Images of which a document or a blob is lost: their rows tell what they need.
  Task<void> check_images() {
    for (const std::string& id : context_.images.list_ids()) {
      const auto missing = co_await missing_blobs(id);
      if (missing.empty() && context_.images.is_available(id)) continue;
      std::string lost;
      // Documents first: only they tell what else belongs to the image.
      for (int round = 0; round < 3 && lost.empty(); ++round) {
        for (const Descriptor& blob : co_await missing_blobs(id)) {
          blobs_.add(blob.digest);
          const auto repositories = context_.images.repositories_of_image(id);
          if ((co_await refetch(repositories, blob)).empty()) lost = blob.digest;
        }
        if (lost.empty()) co_await context_.images.reload(id);
      }
      const bool whole = lost.empty() && context_.images.missing_blobs(id).empty() && context_.images.is_available(id);
      Damage damage{
          "image " + id,
          missing.empty() ? "it could not be read" : fmt::format("{} of its blobs are missing", missing.size()),
          whole ? "fetched again" : "pull or load it again, or remove it", whole};
      tell(std::move(damage));
    }
  }

  /// As Images::missing_blobs(), which knows only what could be read when the daemon started.
  Task<std::vector<Descriptor>> missing_blobs(std::string id) {
    std::vector<Descriptor> out = context_.images.missing_blobs(id);
    for (const Descriptor& manifest : context_.images.wanted_manifests(id)) {
      if (!context_.content().contains(manifest.digest)) continue;
      const std::string text = co_await context_.content().read(manifest.digest, kMaxManifestBytes);
      const Manifest parsed = parse_any_manifest(text, manifest.media_type);
      std::vector<Descriptor> blobs = parsed.layers;
      blobs.push_back(parsed.config);
      for (Descriptor& blob : blobs) {
        const bool known =
            std::any_of(out.begin(), out.end(), [&](const Descriptor& d) { return d.digest == blob.digest; });
        if (!known && !context_.content().contains(blob.digest)) out.push_back(std::move(blob));
      }
    }
    co_return out;
  }

  /// Parents before what stands on them.
  std::vector<storage::Layer> sorted_layers() const {
    std::multimap<int, storage::Layer> by_depth;
    for (const storage::Layer& layer : context_.layers().list()) {
      int depth = 0;
      for (const storage::Layer* at = &layer; at != nullptr && depth < int(kMaxLayers); ++depth)
        at = context_.layers().find(at->parent);
      by_depth.emplace(depth, layer);
    }
    std::vector<storage::Layer> out;
    for (const auto& [depth, layer] : by_depth) out.push_back(layer);
    return out;
  }

  Task<void> check_layer(storage::Layer layer) {
    ++report_.layers;
    const bool have_blob = context_.content().contains(layer.blob_digest);
    auto problems = co_await context_.layers().verify_layer(layer.chain_id);
    if (problems.empty() && request_.contents && have_blob) {
      try {
        auto source = co_await context_.content().open(layer.blob_digest);
        problems = co_await context_.layers().verify_contents(layer.chain_id, std::move(source));
      } catch (const Error& e) {
        if (e.code() == Errc::cancelled) throw;
        problems.push_back({"layer " + layer.chain_id, e.message(), ""});
      }
    }
    if (problems.empty()) co_return;
    std::vector<std::string> texts;
    for (const storage::Problem& problem : problems) texts.push_back(problem.text);
    Damage damage{"layer " + layer.chain_id, join(texts, "; "), "", false};
    damage.outcome = co_await mend_layer(layer, &damage.repaired);
    tell(std::move(damage));
  }

  Task<std::string> mend_layer(storage::Layer layer, bool* mended) {
    if (mounted_.contains(layer.chain_id)) co_return "a container stands on it: stop it and repair again";
    if (!context_.content().contains(layer.blob_digest)) {
      Descriptor blob;
      blob.digest = layer.blob_digest;
      blob.size = -1;
      if (layer.blob_digest.empty() ||
          (co_await refetch(context_.images.repositories_of(layer.blob_digest), blob)).empty())
        co_return "its blob is lost, too: pull or load its image again";
    }
    try {
      co_await context_.layers().mark_missing(layer.chain_id);
      FAILPOINT("repair.after_mark_missing");
      (void)co_await context_.layers().rebuild(layer.chain_id, co_await context_.content().open(layer.blob_digest));
      *mended = true;
      co_return "unpacked again from its blob";
    } catch (const Error& e) {
      if (e.code() == Errc::cancelled) throw;
      co_return fmt::format("it could not be unpacked again: {}", e.message());
    }
  }

  Context& context_;
  const RepairRequest request_;
  const DamageSink sink_;
  BlobHold blobs_;
  storage::LayerHold chains_;
  std::set<std::string> mounted_;
  RepairReport report_;
};

/// True if the repository had it.
Task<bool> fetch_from(Context& context, RepositoryPtr repository, Descriptor blob) {
  auto ingest = co_await context.lanes.quick.run([&content = context.content()] { return content.begin(); });
  const std::int64_t limit = blob.size < 0 ? storage::UnpackBudget{}.bytes : blob.size;
  auto sink = [ingest, limit](int, std::string_view bytes) {
    if (ingest->size() + std::int64_t(bytes.size()) > limit)
      throw Error(Errc::corrupted, "the registry sent more than was announced");
    ingest->write(bytes);
  };
  BlobAttempt result = co_await repository->fetch_blob(blob.digest, 0, sink);
  if (!result.complete) {
    // Manifests and indexes are not among a repository's blobs.
    if (blob.size > std::int64_t(kMaxManifestBytes)) co_return false;
    RemoteManifest document = co_await repository->get_manifest(blob.digest);
    (void)co_await context.content().put(std::move(document.bytes));
    co_return true;
  }
  (void)co_await context.content().commit(ingest, blob.digest, blob.size);
  co_return true;
}

}  // namespace

Task<std::string> refetch_blob(Context& context, std::vector<std::string> repositories, Descriptor blob,
                               std::map<std::string, RegistryAuth> credentials) {
  if (context.content().contains(blob.digest)) co_return std::string("here");
  for (const std::string& name : repositories) {
    const auto reference = try_parse_reference(name);
    if (!reference) continue;
    try {
      const auto known = credentials.find(auth_host(reference->domain));
      RegistryAuth auth = known == credentials.end() ? RegistryAuth{} : known->second;
      RepositoryPtr repository = co_await context.registry.open(*reference, std::move(auth), "pull");
      if (co_await fetch_from(context, repository, blob)) co_return reference->familiar_name();
    } catch (const Error& e) {
      if (e.code() == Errc::cancelled) throw;
      log::debug("{} does not give {}: {}", name, blob.digest, e.message());
    }
  }
  co_return std::string();
}

std::string render_damage(const Damage& damage) {
  return fmt::format("{} {}: {}; {}\n", damage.repaired ? "repaired" : "DAMAGED ", damage.subject, damage.text,
                     damage.outcome);
}

std::string render_report(const RepairReport& report) {
  return fmt::format("{} blobs ({}) and {} layers verified; {} repaired, {} not\n", report.blobs,
                     render_human_size(report.blob_bytes), report.layers, report.repaired, report.unrepaired);
}

Task<RepairReport> repair(Context& context, RepairRequest request, DamageSink sink) {
  Repair repair(context, std::move(request), std::move(sink));
  co_return co_await repair.run();
}

}  // namespace gantry::image
