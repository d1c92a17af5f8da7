#include "api/container_json.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "model/model.hpp"

namespace gantry::api {
namespace {

using engine::Container;

constexpr std::string_view kStorageDriver = "overlay2";

bool is_user_defined(const std::string& network) {
  return network != "bridge" && network != "host" && network != "none";
}

/// One container's document, part by part.
class InspectWriter {
 public:
  InspectWriter(const Container& container, const engine::Services& services, ApiVersion version)
      : container_(container),
        services_(services),
        version_(version),
        networks_(services.networks),
        endpoints_(networks_.endpoints(container)),
        live_(networks_.attachment(container)),
        json_(body_) {}

  std::string write(std::optional<ContainerSizes> sizes);

 private:
  void write_state();
  void write_health();
  void write_exec_ids();
  void write_files();
  json::Value host_config() const;
  json::Value config() const;
  void write_graph_driver();
  void write_network_settings();
  void write_legacy_network_fields();
  void shape_endpoints();

  const Container& container_;
  const engine::Services& services_;
  const ApiVersion version_;
  engine::NetworkView networks_;
  std::map<std::string, model::EndpointSettings> endpoints_;
  const network::Attachment* live_;  // nullptr: it does not run
  std::string body_;
  JsonWriter json_;
};

std::string InspectWriter::write(std::optional<ContainerSizes> sizes) {
  shape_endpoints();
  json_.begin_object();
  json_.field("Id", container_.id.str()).field("Created", render_rfc3339_nano(container_.created));
  json_.field("Path", container_.path).key("Args").begin_array();
  for (const std::string& arg : container_.args) json_.value(arg);
  json_.end_array();
  write_state();
  json_.field("Image", container_.image_id);
  if (version_ >= ApiVersion{1, 48})
    if (const auto descriptor = render_manifest_descriptor(services_.images, container_.image_id); !descriptor.empty())
      json_.key("ImageManifestDescriptor").raw(descriptor);
  write_files();
  json_.field("Name", "/" + container_.name).field("RestartCount", container_.state.restart_count);
  json_.field("Driver", kStorageDriver).field("Platform", container_.platform);
  json_.field("MountLabel", "").field("ProcessLabel", "").field("AppArmorProfile", "");
  write_exec_ids();
  json_.key("HostConfig").raw(json::render(host_config()));
  write_graph_driver();
  if (sizes) json_.field("SizeRw", sizes->rw).field("SizeRootFs", sizes->root_fs);
  json_.key("Mounts");
  write_mounts(json_, container_);
  json_.key("Config").raw(json::render(config()));
  write_network_settings();
  json_.end_object();
  return std::move(body_);
}

void InspectWriter::write_state() {
  const engine::ContainerState& state = container_.state;
  json_.key("State").begin_object();
  json_.field("Status", engine::status_name(container_.status())).field("Running", state.running);
  json_.field("Paused", state.paused).field("Restarting", state.restarting).field("OOMKilled", state.oom_killed);
  json_.field("Dead", state.dead).field("Pid", state.running && !state.restarting ? state.pid : 0);
  json_.field("ExitCode", state.exit_code).field("Error", state.error);
  json_.field("StartedAt", render_rfc3339_nano(state.started));
  json_.field("FinishedAt", render_rfc3339_nano(state.finished));
  write_health();
  json_.end_object();
}

void InspectWriter::write_health() {
  const auto& health = container_.state.health;
  if (!health) return;
  json_.key("Health").begin_object().field("Status", container_.health_text());
  json_.field("FailingStreak", health->failing_streak).key("Log").begin_array();
  for (const engine::HealthResult& result : health->log) {
    json_.begin_object()
        .field("Start", render_rfc3339_nano(result.start))
        .field("End", render_rfc3339_nano(result.end));
    json_.field("ExitCode", result.exit_code).field("Output", result.output).end_object();
  }
  json_.end_array().end_object();
}

void InspectWriter::write_exec_ids() {
  json_.key("ExecIDs");
  if (container_.execs.empty()) {
    json_.null();
    return;
  }
  json_.begin_array();
  for (const std::string& id : container_.execs) json_.value(id);
  json_.end_array();
}

void InspectWriter::write_files() {
  // With another container's network come its files.
  const bool borrowed = live_ != nullptr && !live_->donor_id.empty();
  const sys::Path directory = services_.paths.container(borrowed ? live_->donor_id : container_.id.str());
  json_.field("ResolvConfPath", (directory / "resolv.conf").string());
  json_.field("HostnamePath", (directory / "hostname").string());
  json_.field("HostsPath", (directory / "hosts").string());
  json_.field("LogPath", container_.log_path);
}

json::Value InspectWriter::host_config() const {
  model::HostConfig host = container_.host;
  if (host.NetworkMode.empty()) host.NetworkMode = container_.network_mode();
  if (host.Links)
    for (std::string& link : *host.Links) {
      const auto [child, alias] = split_once(link, ':');
      link = "/" + std::string(child) + ":/" + container_.name + "/" + std::string(alias.empty() ? child : alias);
    }
  for (const auto& [name, limit] : services_.config.default_ulimits) {
    if (!host.Ulimits) host.Ulimits.emplace();
    const bool own = std::any_of(host.Ulimits->begin(), host.Ulimits->end(),
                                 [&name](const model::Ulimit& ulimit) { return ulimit.Name == name; });
    if (!own) host.Ulimits->push_back(model::Ulimit{name, limit.hard, limit.soft});
  }
  return model::encode(host);
}

json::Value InspectWriter::config() const {
  model::ContainerConfig config = container_.config;
  if (!config.Labels) config.Labels.emplace();
  config.MacAddress.reset();
  if (version_ < ApiVersion{1, 52}) {
    const auto main = container_.networks.find(container_.network_mode());
    if (main != container_.networks.end() && !main->second.MacAddress.empty())
      config.MacAddress = main->second.MacAddress;
  }
  return model::encode(config);
}

void InspectWriter::write_graph_driver() {
  const storage::RootfsInfo info = services_.rootfs.info(container_.id, container_.chain_id);
  json_.key("GraphDriver").begin_object().field("Name", kStorageDriver).key("Data").begin_object();
  json_.field("ID", container_.id.str()).field("LowerDir", info.lower_text());
  json_.field("MergedDir", info.merged.string()).field("UpperDir", info.upper.string());
  json_.field("WorkDir", info.work.string()).end_object().end_object();
}

void InspectWriter::shape_endpoints() {
  if (version_ >= ApiVersion{1, 45}) return;
  for (auto& [name, endpoint] : endpoints_) {
    if (!is_user_defined(name)) continue;
    if (!endpoint.Aliases) endpoint.Aliases.emplace();
    for (const std::string& alias : {container_.id.short_form(), container_.config.Hostname}) {
      auto& aliases = *endpoint.Aliases;
      if (!alias.empty() && std::find(aliases.begin(), aliases.end(), alias) == aliases.end()) aliases.push_back(alias);
    }
  }
}

void InspectWriter::write_network_settings() {
  const bool own = live_ != nullptr && live_->kind != network::SandboxKind::joined;
  json_.key("NetworkSettings").begin_object();
  if (version_ < ApiVersion{1, 52}) write_legacy_network_fields();
  json_.field("SandboxID", own ? live_->sandbox_id : "").field("SandboxKey", own ? live_->netns_path : "");
  json_.key("Ports").raw(json::render(model::encode(networks_.ports(container_))));
  json_.key("Networks").begin_object();
  for (const auto& [name, endpoint] : endpoints_) {
    json_.key(name);
    write_endpoint(json_, endpoint);
  }
  json_.end_object().end_object();
}

/// What older clients read: the place in the default bridge, and fields that have long lost their meaning.
void InspectWriter::write_legacy_network_fields() {
  const auto found = endpoints_.find("bridge");
  const model::EndpointSettings bridge = found == endpoints_.end() ? model::EndpointSettings{} : found->second;
  json_.field("Bridge", "").field("HairpinMode", false);
  json_.field("LinkLocalIPv6Address", "").field("LinkLocalIPv6PrefixLen", 0);
  json_.key("SecondaryIPAddresses").null().key("SecondaryIPv6Addresses").null();
  json_.field("EndpointID", bridge.EndpointID).field("Gateway", bridge.Gateway);
  json_.field("GlobalIPv6Address", bridge.GlobalIPv6Address);
  json_.field("GlobalIPv6PrefixLen", bridge.GlobalIPv6PrefixLen);
  json_.field("IPAddress", bridge.IPAddress).field("IPPrefixLen", bridge.IPPrefixLen);
  json_.field("IPv6Gateway", bridge.IPv6Gateway).field("MacAddress", bridge.MacAddress);
}

}  // namespace

std::string render_container(const Container& container, const engine::Services& services, ApiVersion version,
                             std::optional<ContainerSizes> sizes) {
  return InspectWriter(container, services, version).write(sizes);
}

}  // namespace gantry::api
