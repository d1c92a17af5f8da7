#include <map>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildcache/snapshots.hpp"
#include "buildops/source_op.hpp"
#include "session/sessions.hpp"

namespace gantry::buildops {
namespace {

using buildlink::Image;
using buildlink::ImageRequest;
using buildlink::ResolveMode;

/// Layers that are being fetched, as lines below the step.
class PullLines {
 public:
  explicit PullLines(solver::Progress* progress) : progress_(progress) {}
  void show(const buildlink::PullProgress& figure) {
    if (progress_ == nullptr || figure.Id.empty() || figure.Total == 0) return;
    const std::lock_guard lock(mutex_);
    auto& line = lines_[figure.Id];
    if (!line) line = progress_->status(figure.Id);
    line->update(figure.Current, figure.Total);
  }

 private:
  solver::Progress* const progress_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<solver::Progress::Status>> lines_;
};

/// The host of a reference in full form: "docker.io/library/alpine" → what the client calls Docker Hub.
std::string registry_host(const std::string& reference) {
  std::string host = reference.substr(0, reference.find('/'));
  const bool is_host =
      reference.find('/') != std::string::npos &&
      (host.find('.') != std::string::npos || host.find(':') != std::string::npos || host == "localhost");
  if (!is_host || host == "docker.io" || host == "index.docker.io") return "registry-1.docker.io";
  return host;
}

buildcache::ImageLayer cache_layer(const buildlink::ImageLayer& layer) {
  return {.chain_id = layer.chain_id,
          .diff_id = layer.diff_id,
          .directory = layer.directory,
          .size = layer.size,
          .created = layer.created};
}

std::string platform_text(const pb::Platform& platform) {
  if (platform.os().empty() && platform.architecture().empty()) return {};
  std::string text = fmt::format("{}/{}", platform.os(), platform.architecture());
  if (!platform.variant().empty()) text += "/" + platform.variant();
  return text;
}

class ImageSource final : public solver::Operation {
 public:
  ImageSource(const Services& services, const llb::Vertex& vertex) : services_(services) {
    const pb::SourceOp& source = vertex.op().source();
    request_.reference = parse_source_name(source.identifier()).rest;
    request_.platform = platform_text(vertex.op().platform());
    if (source_attribute(source, "image.resolvemode") == "pull") request_.mode = ResolveMode::pull;
  }
  bool is_work() const override { return false; }

  solver::CacheMap cache_map(solver::OpContext& context) override {
    ImageRequest request = request_;
    request.layers = false;
    const auto line = context.progress.status("resolve " + request_.reference);
    found_ = resolve_image(services_, std::move(request), context.sessions, &context.progress, context.stop);
    solver::CacheMap map;
    map.key = fmt::format("image.v1\n{}\n{}", found_.digest, request_.platform);
    return map;
  }

  std::vector<buildcache::SnapshotPtr> execute(solver::OpContext& context,
                                               const std::vector<buildcache::SnapshotPtr>&) override {
    const Image image = fetch(context);
    std::vector<buildcache::ImageLayer> layers;
    for (const buildlink::ImageLayer& layer : image.layers) layers.push_back(cache_layer(layer));
    return {services_.snapshots.adopt_image(layers, image.lease)};
  }

 private:
  /// The image that the key names, whatever its tag means by now.
  Image fetch(solver::OpContext& context) const {
    ImageRequest request = request_;
    if (!found_.id.empty()) {
      request.reference = found_.id;
      request.mode = ResolveMode::local;
      try {
        return resolve_image(services_, request, context.sessions, &context.progress, context.stop);
      } catch (const Error& e) {
        if (e.code() != Errc::not_found) throw;
      }
      request = request_;
    }
    Image image = resolve_image(services_, request, context.sessions, &context.progress, context.stop);
    if (!found_.digest.empty() && image.digest != found_.digest)
      throw Error(Errc::unavailable, fmt::format("{} has changed while it was being resolved", request_.reference));
    return image;
  }

  const Services& services_;
  ImageRequest request_;
  Image found_;
};

}  // namespace

Image resolve_image(const Services& services, ImageRequest request, const solver::SessionGroup& sessions,
                    solver::Progress* progress, std::stop_token stop) {
  PullLines lines(progress);
  const auto show = [&](const buildlink::PullProgress& figure) { lines.show(figure); };
  if (request.mode != ResolveMode::pull) {
    // The client is not asked for accounts while nobody needs them.
    ImageRequest local = request;
    local.mode = ResolveMode::local;
    try {
      return services.engine.resolve_image(local, show, stop);
    } catch (const Error& e) {
      if (e.code() != Errc::not_found || request.mode == ResolveMode::local) throw;
    }
  }
  if (const auto account = services.sessions.credentials(sessions.ids(), registry_host(request.reference), stop)) {
    request.auth.username = account->username;
    (account->username.empty() ? request.auth.identity_token : request.auth.password) = account->secret;
  }
  return services.engine.resolve_image(request, show, stop);
}

std::unique_ptr<solver::Operation> make_image_source(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<ImageSource>(services, vertex);
}

}  // namespace gantry::buildops
