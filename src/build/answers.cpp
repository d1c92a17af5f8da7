#include "build/answers.hpp"

#include <algorithm>

#include <fcntl.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "async/task_group.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "image/platform.hpp"
#include "image/reference.hpp"
#include "json/codec.hpp"

namespace gantry::build {
namespace {

template <class T>
T read_params(const std::string& text) {
  return json::decode<T>(json::parse(text.empty() ? "{}" : text));
}

template <class T>
std::string render(const T& value) {
  return json::render(json::encode(value));
}

std::int64_t nanoseconds(Timestamp time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

std::optional<image::Platform> read_platform(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional(image::parse_platform(text));
}

image::RegistryAuth read_auth(const protocol::LinkCredentials& from) {
  image::RegistryAuth out;
  out.username = from.Username;
  out.password = from.Password;
  out.identity_token = from.IdentityToken;
  out.registry_token = from.RegistryToken;
  return out;
}

/// A pull's messages are JSON lines for clients; the worker wants their figures.
Task<void> forward_progress(image::ProgressPtr progress, LinkCallPtr call) {
  while (const auto line = co_await progress->next()) {
    const json::Value message = json::parse(trim(*line));
    const auto& object = message.as_object();
    protocol::PullFigure figure;
    if (const json::Value* id = json::find(object, "id")) figure.Id = json::decode<std::string>(*id);
    if (const json::Value* status = json::find(object, "status")) figure.Status = json::decode<std::string>(*status);
    if (const json::Value* detail = json::find(object, "progressDetail")) {
      if (const json::Value* n = json::find(detail->as_object(), "current"))
        figure.Current = json::decode<std::int64_t>(*n);
      if (const json::Value* n = json::find(detail->as_object(), "total"))
        figure.Total = json::decode<std::int64_t>(*n);
    }
    call->progress(render(figure));
  }
}

/// Throws invalid_argument unless `path` is a directory right below the builder's own trees.
sys::Path check_directory(const sys::Path& root, const std::string& path) {
  const sys::Path clean = sys::Path(path).lexically_normal();
  const sys::Path below = clean.lexically_relative(root);
  if (below.empty() || below.native().starts_with(".") || clean != sys::Path(path))
    throw Error(Errc::invalid_argument, fmt::format("{} is not below {}", path, root.string()));
  return clean;
}

bool is_sandbox_name(std::string_view id) {
  return !id.empty() && id.size() <= 32 &&
         std::ranges::all_of(id, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

struct Files {
  sys::Fd netns;
  protocol::AttachNetworkResult texts;
};

Files read_files_blocking(const sys::Path& directory, const std::string& netns) {
  Files out;
  if (!netns.empty()) out.netns = sys::open_file(netns, O_RDONLY);
  out.texts.ResolvConf = sys::find_file(directory / "resolv.conf", 1 << 20).value_or(std::string());
  out.texts.Hosts = sys::find_file(directory / "hosts", 1 << 20).value_or(std::string());
  return out;
}

}  // namespace

Answers::Answers(engine::Services& services, image::Transfers& transfers, Leases& leases, SettingsSource settings,
                 UsageSink usage)
    : services_(services),
      transfers_(transfers),
      leases_(leases),
      settings_(std::move(settings)),
      usage_(std::move(usage)),
      tasks_(services.loop) {
  handlers_ = {{"image.resolve", &Answers::resolve_image},
               {"layer.commit", &Answers::commit_layer},
               {"layer.release", &Answers::release_layers},
               {"layer.leased", &Answers::list_kept},
               {"layer.hold", &Answers::hold_layer},
               {"lease.drop", &Answers::drop_lease},
               {"layer.of_images", &Answers::layers_of_images},
               {"image.create", &Answers::create_image},
               {"network.detach", &Answers::detach_network},
               {"settings", &Answers::read_settings},
               {"usage", &Answers::note_usage},
               {"pruned", &Answers::note_pruned}};
}

Task<LinkReply> Answers::answer(std::string method, std::string params, LinkCallPtr call) {
  if (method == "network.attach") co_return co_await attach_network(std::move(params));
  if (method == "image.save") co_return co_await save_image(std::move(params));
  const auto handler = handlers_.find(method);
  if (handler == handlers_.end()) throw Error(Errc::not_implemented, "unknown request of the builder: " + method);
  LinkReply reply;
  reply.json = co_await (this->*handler->second)(std::move(params), std::move(call));
  co_return reply;
}

Task<void> Answers::take_back() {
  leases_.drop_all();
  for (const std::string& id : std::set<std::string>(networks_)) co_await release_network(id);
  co_await tasks_.join();
  collect_ = true;
}

Task<void> Answers::collect() {
  if (!std::exchange(collect_, false)) co_return;
  (void)co_await services_.images.collect_garbage();
}

// ---- images

Task<image::ImagePtr> Answers::find_or_pull(protocol::ResolveImageParams wanted, LinkCallPtr call) {
  const auto platform = read_platform(wanted.Platform);
  if (wanted.Mode != "pull") {
    const image::ImagePtr here = services_.images.find(wanted.Reference, platform);
    if (here && here->available) co_return here;
    if (wanted.Mode == "local") co_return services_.images.get(wanted.Reference, platform);
  }
  const image::Reference name = image::parse_reference(wanted.Reference).with_default_tag();
  image::PullRequest request;
  request.image = name.canonical();
  request.platform = platform;
  request.auth = read_auth(wanted.Auth);
  auto progress = std::make_shared<image::Progress>();
  async::TaskGroup figures(services_.loop);
  figures.spawn("progress of a build's pull", forward_progress(progress, call));
  co_await transfers_.pull(std::move(request), progress);
  progress->close();
  co_return services_.images.get(name.digest.empty() ? name.canonical() : name.with_digest(name.digest).canonical(),
                                 platform);
}

Task<protocol::LinkLayer> Answers::describe(std::string chain) {
  const storage::Layer* layer = services_.layers.find(chain);
  if (layer == nullptr) throw Error(Errc::not_found, fmt::format("layer {} is not stored", chain));
  protocol::LinkLayer out;
  out.ChainId = chain;
  out.DiffId = layer->diff_id;
  out.Directory = services_.layers.directory(chain).string();
  out.Size = layer->size;
  out.Created = nanoseconds(layer->created);
  if (const auto blob = co_await transfers_.find_layer_blob(chain)) {
    out.BlobDigest = blob->digest;
    out.BlobSize = blob->size;
    out.BlobMediaType = blob->media_type;
    out.BlobPath = services_.images.content().path(blob->digest).string();
  }
  co_return out;
}

Task<std::string> Answers::resolve_image(std::string text, LinkCallPtr call) {
  auto params = read_params<protocol::ResolveImageParams>(text);
  const bool layers = params.Layers;
  const std::string reference = params.Reference;
  const image::ImagePtr image = co_await find_or_pull(std::move(params), call);
  protocol::ResolveImageResult out;
  out.Id = image->id;
  out.Digest = image->manifest.digest;
  const auto name = image::try_parse_reference(reference);
  out.Name = name ? name->with_default_tag().canonical() : reference;
  if (layers) {
    std::vector<std::string> blobs{image->config_digest};
    for (const image::Descriptor& layer : image->layers) blobs.push_back(layer.digest);
    const std::uint64_t lease = leases_.hold(image->top_chain(), blobs);
    std::exception_ptr failure;
    try {
      co_await services_.images.ensure_unpacked(image);
      for (const std::string& chain : image->chain_ids) out.Layers.push_back(co_await describe(chain));
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
    if (failure) {
      leases_.drop(lease);
      std::rethrow_exception(failure);
    }
    out.Lease = lease;
  }
  out.Config = co_await services_.images.content().read(image->config_digest, image::kMaxConfigBytes);
  co_return render(out);
}

Task<std::string> Answers::create_image(std::string text, LinkCallPtr) {
  auto params = read_params<protocol::CreateImageParams>(text);
  image::AssembleRequest request;
  request.config = std::move(params.Config);
  request.names = std::move(params.Names);
  request.chains = std::move(params.ChainIds);
  request.blobs = leases_.list();
  image::AssembledImage made = co_await async::shielded(transfers_.assemble(std::move(request)));
  protocol::CreateImageResult out;
  out.Id = made.image->id;
  out.ConfigDigest = made.config_digest;
  out.Manifest = made.manifest;
  out.Names = made.names;
  co_return render(out);
}

namespace {

Task<void> pump(std::shared_ptr<storage::ByteChannel> from, sys::Fd to, async::Lanes* lanes) {
  co_await lanes->bulk.run([from, fd = std::make_shared<sys::Fd>(std::move(to))] {
    std::string buffer(256 << 10, '\0');
    try {
      for (std::size_t got; (got = from->read(buffer.data(), buffer.size())) > 0;)
        sys::write_all(fd->get(), std::string_view(buffer).substr(0, got));
    } catch (const Error& e) {
      from->abort();
      log::debug("an image for the builder: {}", e.message());
    }
  });
}

}  // namespace

Task<LinkReply> Answers::save_image(std::string text) {
  image::SaveRequest request;
  request.names = read_params<protocol::SaveImageParams>(text).Names;
  auto stream = co_await transfers_.save(std::move(request));
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) throw Error::from_errno(errno, "socketpair");
  LinkReply reply{"{}", sys::Fd(fds[0])};
  tasks_.spawn("an image for the builder", pump(std::move(stream), sys::Fd(fds[1]), &services_.lanes));
  co_return reply;
}

// ---- layers

Task<std::string> Answers::commit_layer(std::string text, LinkCallPtr call) {
  const auto params = read_params<protocol::CommitLayerParams>(text);
  const sys::Path directory = check_directory(services_.paths.builder(), params.Directory);
  if (!params.Parent.empty() && !services_.layers.is_complete(params.Parent))
    throw Error(Errc::not_found, fmt::format("layer {} is not stored", params.Parent));
  storage::LayerHold parent = services_.layers.hold();
  parent.add(params.Parent);
  image::PackedLayer packed = co_await transfers_.pack_layer(directory, call->given_up());
  storage::AdoptRequest request;
  request.parent = params.Parent;
  request.diff_id = packed.diff_id;
  request.blob_digest = packed.blob.digest;
  request.directory = directory;
  request.created = params.Created != 0 ? Timestamp(std::chrono::nanoseconds(params.Created)) : now();
  const storage::Unpacked placed = co_await async::shielded(keep_layer(std::move(request), packed.blob.digest));
  co_return render(co_await describe(placed.layer.chain_id));
}

/// The promise to keep the layer comes first: a layer without one could be swept, a promise without a layer is
/// forgotten at the next start.
Task<storage::Unpacked> Answers::keep_layer(storage::AdoptRequest request, std::string blob) {
  const std::string chain = storage::chain_id(request.parent, request.diff_id);
  const bool known = leases_.is_kept(chain);
  if (!known) co_await leases_.keep(chain, blob);
  FAILPOINT("build.layer.after_promise");
  std::exception_ptr failure;
  try {
    co_return co_await services_.layers.adopt(std::move(request));
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (!known) co_await leases_.release(chain);
  std::rethrow_exception(failure);
}

Task<std::string> Answers::release_layers(std::string text, LinkCallPtr) {
  for (const std::string& chain : read_params<protocol::Chains>(text).ChainIds) co_await leases_.release(chain);
  collect_ = true;
  co_return "{}";
}

Task<std::string> Answers::list_kept(std::string, LinkCallPtr) {
  protocol::Chains out;
  for (const auto& [chain, blob] : leases_.list()) out.ChainIds.push_back(chain);
  co_return render(out);
}

Task<std::string> Answers::hold_layer(std::string text, LinkCallPtr) {
  const auto params = read_params<protocol::Chains>(text);
  protocol::LeaseId out;
  if (params.ChainIds.size() == 1 && services_.layers.is_complete(params.ChainIds.front()))
    out.Lease = leases_.hold(params.ChainIds.front(), {});
  co_return render(out);
}

Task<std::string> Answers::drop_lease(std::string text, LinkCallPtr) {
  leases_.drop(read_params<protocol::LeaseId>(text).Lease);
  co_return "{}";
}

Task<std::string> Answers::layers_of_images(std::string text, LinkCallPtr) {
  const auto params = read_params<protocol::Chains>(text);
  const std::set<std::string> wanted(params.ChainIds.begin(), params.ChainIds.end());
  std::set<std::string> found;
  for (const std::string& id : services_.images.list_ids())
    for (const image::ImagePtr& image : services_.images.list_variants(id))
      for (const std::string& chain : image->chain_ids)
        if (wanted.contains(chain)) found.insert(chain);
  protocol::Chains out;
  out.ChainIds.assign(found.begin(), found.end());
  co_return render(out);
}

// ---- networks

sys::Path Answers::network_directory(const std::string& id) const { return services_.paths.build() / "networks" / id; }

Task<LinkReply> Answers::attach_network(std::string text) {
  const auto params = read_params<protocol::AttachNetworkParams>(text);
  if (!is_sandbox_name(params.Id)) throw Error(Errc::invalid_argument, "a network sandbox's name is [a-z0-9]{1,32}");
  if (networks_.contains(params.Id)) throw Error(Errc::conflict, "the network sandbox exists: " + params.Id);
  network::AttachRequest request;
  request.container_id = std::string(protocol::kSandboxPrefix) + params.Id;
  request.name = request.container_id;
  request.hostname = params.Hostname;
  request.network_mode = params.Mode;
  request.extra_hosts = params.ExtraHosts;
  request.container_directory = network_directory(params.Id);
  services_.networks.validate(request);
  networks_.insert(params.Id);
  std::exception_ptr failure;
  try {
    co_await services_.lanes.quick.run(
        [directory = request.container_directory] { sys::make_directories(directory, 0700); });
    const network::AttachResult made = co_await services_.networks.attach(request);
    FAILPOINT("build.network.after_attach");
    Files files = co_await services_.lanes.quick.run(
        [directory = request.container_directory, netns = made.attachment.netns_path] {
          return read_files_blocking(directory, netns);
        });
    LinkReply reply{render(files.texts), std::move(files.netns)};
    co_return reply;
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  tasks_.spawn("taking a build's network back", release_network(params.Id));
  std::rethrow_exception(failure);
}

Task<std::string> Answers::detach_network(std::string text, LinkCallPtr) {
  co_await async::shielded(release_network(read_params<protocol::AttachNetworkParams>(text).Id));
  co_return "{}";
}

Task<void> Answers::release_network(std::string id) {
  if (!networks_.contains(id)) co_return;
  co_await services_.networks.detach(std::string(protocol::kSandboxPrefix) + id);
  networks_.erase(id);
  co_await services_.lanes.quick.run([directory = network_directory(id)] { sys::remove_tree(directory); });
}

// ---- the rest

Task<std::string> Answers::read_settings(std::string, LinkCallPtr) { co_return render(settings_()); }

Task<std::string> Answers::note_pruned(std::string text, LinkCallPtr) {
  const auto notice = read_params<protocol::PrunedNotice>(text);
  services_.events.publish("builder", "prune", "", {{"reclaimed", std::to_string(notice.Reclaimed)}});
  co_await collect();
  co_return "{}";
}

Task<std::string> Answers::note_usage(std::string text, LinkCallPtr) {
  auto report = read_params<protocol::UsageReport>(text);
  if (report.Records.size() > protocol::kMaxUsageRecords) report.Records.resize(protocol::kMaxUsageRecords);
  usage_(std::move(report));
  co_return "{}";
}

}  // namespace gantry::build
