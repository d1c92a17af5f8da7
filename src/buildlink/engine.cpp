#include "buildlink/engine.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "buildlink/link.hpp"
#include "buildlink/requests.hpp"
#include "json/codec.hpp"

namespace gantry::buildlink {
namespace {

template <class T>
std::string render(const T& value) {
  return json::render(json::encode(value));
}

template <class T>
T read(const std::string& text) {
  return json::decode<T>(json::parse(text));
}

ImageLayer make_layer(const protocol::LinkLayer& from) {
  ImageLayer out;
  out.chain_id = from.ChainId;
  out.diff_id = from.DiffId;
  out.directory = from.Directory;
  out.size = from.Size;
  out.created = Timestamp(std::chrono::nanoseconds(from.Created));
  out.blob_digest = from.BlobDigest;
  out.blob_size = from.BlobSize;
  out.blob_path = from.BlobPath;
  out.blob_media_type = from.BlobMediaType;
  return out;
}

std::string mode_name(ResolveMode mode) {
  switch (mode) {
    case ResolveMode::local: return "local";
    case ResolveMode::pull: return "pull";
    case ResolveMode::prefer_local: return "prefer-local";
  }
  return "local";
}

/// Runs something when the last owner goes; what goes wrong then concerns nobody.
class Finally {
 public:
  explicit Finally(std::function<void()> action) : action_(std::move(action)) {}
  ~Finally() {
    try {
      action_();
    } catch (const Error& e) {
      log::debug("giving back to the daemon: {}", e.message());
    }
  }
  Finally(const Finally&) = delete;
  Finally& operator=(const Finally&) = delete;

 private:
  std::function<void()> action_;
};

class LinkedEngine final : public Engine {
 public:
  LinkedEngine(sys::Fd socket, std::function<void()> gone)
      : requests_(std::make_shared<Requests>(std::move(socket), std::move(gone))) {}

  Image resolve_image(const ImageRequest& request, const std::function<void(const PullProgress&)>& progress,
                      std::stop_token stop) override {
    protocol::ResolveImageParams params;
    params.Reference = request.reference;
    params.Platform = request.platform;
    params.Mode = mode_name(request.mode);
    params.Layers = request.layers;
    params.Auth = {request.auth.username, request.auth.password, request.auth.identity_token,
                   request.auth.registry_token};
    const auto figures = [&](const std::string& text) {
      if (progress) progress(read<protocol::PullFigure>(text));
    };
    const auto answer = read<protocol::ResolveImageResult>(call("image.resolve", render(params), stop, figures).text);
    Image out;
    out.lease = make_lease(answer.Lease);
    out.id = answer.Id;
    out.digest = answer.Digest;
    out.name = answer.Name;
    out.config_json = answer.Config;
    for (const protocol::LinkLayer& layer : answer.Layers) out.layers.push_back(make_layer(layer));
    return out;
  }

  ImageLayer commit_layer(const std::string& parent_chain, const sys::Path& directory, std::stop_token stop) override {
    protocol::CommitLayerParams params;
    params.Parent = parent_chain;
    params.Directory = directory.string();
    return make_layer(read<protocol::LinkLayer>(call("layer.commit", render(params), stop).text));
  }

  void release_layer(const std::string& chain_id) override {
    (void)call("layer.release", render(protocol::Chains{{chain_id}}), {});
  }

  std::vector<std::string> leased_layers() override {
    return read<protocol::Chains>(call("layer.leased", "{}", {}).text).ChainIds;
  }

  std::shared_ptr<void> hold_layer(const std::string& chain_id) override {
    return make_lease(read<protocol::LeaseId>(call("layer.hold", render(protocol::Chains{{chain_id}}), {}).text).Lease);
  }

  std::set<std::string> layers_of_images(const std::vector<std::string>& chain_ids) override {
    const auto found = read<protocol::Chains>(call("layer.of_images", render(protocol::Chains{chain_ids}), {}).text);
    return {found.ChainIds.begin(), found.ChainIds.end()};
  }

  CreatedImage create_image(const NewImage& image, std::stop_token stop) override {
    protocol::CreateImageParams params;
    params.Config = image.config_json;
    params.ChainIds = image.chain_ids;
    params.Names = image.names;
    auto answer = read<protocol::CreateImageResult>(call("image.create", render(params), stop).text);
    CreatedImage out;
    out.id = std::move(answer.Id);
    out.config_digest = std::move(answer.ConfigDigest);
    out.manifest = std::move(answer.Manifest);
    out.names = std::move(answer.Names);
    return out;
  }

  sys::Fd save_image(const std::vector<std::string>& names) override {
    protocol::SaveImageParams params;
    params.Names = names;
    return call("image.save", render(params), {}).fd;
  }

  Network attach_network(const NetworkRequest& request, std::stop_token stop) override {
    protocol::AttachNetworkParams params;
    params.Id = request.id;
    params.Mode = request.mode;
    params.Hostname = request.hostname;
    params.ExtraHosts = request.extra_hosts;
    Answer answer = call("network.attach", render(params), stop);
    const auto texts = read<protocol::AttachNetworkResult>(answer.text);
    Network out;
    out.resolv_conf = texts.ResolvConf;
    out.hosts = texts.Hosts;
    auto netns = std::make_shared<sys::Fd>(std::move(answer.fd));
    if (*netns) out.netns = fmt::format("/proc/{}/fd/{}", ::getpid(), netns->get());
    out.lease = std::make_shared<Finally>([requests = requests_, netns, id = request.id] {
      netns->reset();
      protocol::AttachNetworkParams back;
      back.Id = id;
      (void)requests->call("network.detach", render(back), {}, {});
    });
    return out;
  }

  Settings settings() override { return read<Settings>(call("settings", "{}", {}).text); }

  bool may_leave(std::uint64_t received) override {
    return read<protocol::LeaveResult>(call("worker.leave", render(protocol::LeaveParams{received}), {}).text).Go;
  }

  void tell_usage(const protocol::UsageReport& report) override { requests_->notify("usage", render(report)); }

  void tell_pruned(std::int64_t reclaimed) override {
    requests_->notify("pruned", render(protocol::PrunedNotice{reclaimed}));
  }

 private:
  Answer call(const char* method, std::string params, std::stop_token stop, Requests::Figures figures = {}) {
    return requests_->call(method, std::move(params), stop, std::move(figures));
  }

  std::shared_ptr<void> make_lease(std::uint64_t number) {
    if (number == 0) return nullptr;
    return std::make_shared<Finally>(
        [requests = requests_, number] { requests->notify("lease.drop", render(protocol::LeaseId{number})); });
  }

  std::shared_ptr<Requests> requests_;
};

}  // namespace

std::unique_ptr<Engine> connect_engine(sys::Fd requests, std::function<void()> gone) {
  return std::make_unique<LinkedEngine>(std::move(requests), std::move(gone));
}

}  // namespace gantry::buildlink
