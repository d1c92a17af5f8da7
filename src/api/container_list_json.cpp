#include <unordered_map>

#include <algorithm>

#include "api/container_json.hpp"
#include "base/text.hpp"

namespace gantry::api {
namespace {

using engine::Container;

/// What several containers of one list share.
class ListWriter {
 public:
  ListWriter(const engine::Services& services, engine::NetworkView& networks, ApiVersion version,
             const SizesById* sizes, const engine::LinkNames& links)
      : services_(services),
        networks_(networks),
        version_(version),
        sizes_(sizes),
        links_(links),
        now_(gantry::now()) {}

  void write(JsonWriter& json, const Container& container);

 private:
  std::string shown_image(const Container& container);
  const std::string& manifest_descriptor(const std::string& image_id);
  void write_names(JsonWriter& json, const Container& container);
  void write_health(JsonWriter& json, const Container& container);
  void write_ports(JsonWriter& json, const Container& container);
  void write_labels(JsonWriter& json, const Container& container);
  void write_host_config(JsonWriter& json, const Container& container);
  void write_networks(JsonWriter& json, const Container& container);
  void write_sizes(JsonWriter& json, const Container& container);

  const engine::Services& services_;
  engine::NetworkView& networks_;
  const ApiVersion version_;
  const SizesById* sizes_;
  const engine::LinkNames& links_;
  const Timestamp now_;
  std::unordered_map<std::string, std::string> ids_of_names_;  // what an image's name stands for now
  std::unordered_map<std::string, std::string> descriptors_;   // rendered, by image id
};

void ListWriter::write(JsonWriter& json, const Container& container) {
  json.begin_object();
  json.field("Id", container.id.str());
  write_names(json, container);
  json.field("Image", shown_image(container));
  json.field("ImageID", container.image_id);
  if (version_ >= ApiVersion{1, 48})
    if (const std::string& descriptor = manifest_descriptor(container.image_id); !descriptor.empty())
      json.key("ImageManifestDescriptor").raw(descriptor);
  json.field("Command", render_command(container));
  json.field("Created", std::chrono::floor<std::chrono::seconds>(container.created).time_since_epoch().count());
  write_ports(json, container);
  write_sizes(json, container);
  write_labels(json, container);
  json.field("State", engine::status_name(container.status()));
  json.field("Status", container.status_text(now_));
  write_host_config(json, container);
  if (version_ >= ApiVersion{1, 52}) write_health(json, container);
  write_networks(json, container);
  json.key("Mounts");
  write_mounts(json, container);
  json.end_object();
}

void ListWriter::write_names(JsonWriter& json, const Container& container) {
  std::vector<std::string> names{"/" + container.name};
  if (const auto found = links_.find(container.id.str()); found != links_.end())
    for (const std::string& name : found->second) names.push_back("/" + name);
  std::ranges::sort(names);
  json.key("Names").begin_array();
  for (const std::string& name : names) json.value(name);
  json.end_array();
}

void ListWriter::write_health(JsonWriter& json, const Container& container) {
  const auto& health = container.state.health;
  json.key("Health").begin_object().field("Status", container.health_text());
  json.field("FailingStreak", health ? health->failing_streak : 0).end_object();
}

/// The name that the container was created with, unless it means another image now (or nothing): then the id.
std::string ListWriter::shown_image(const Container& container) {
  const auto [place, added] = ids_of_names_.try_emplace(container.image_ref);
  if (added) {
    try {
      if (const image::ImagePtr image = services_.images.find(container.image_ref)) place->second = image->id;
    } catch (const Error&) {
      // An ambiguous id prefix by now: the full id says it better.
    }
  }
  return place->second == container.image_id ? container.image_ref : container.image_id;
}

const std::string& ListWriter::manifest_descriptor(const std::string& image_id) {
  const auto [place, added] = descriptors_.try_emplace(image_id);
  if (added) place->second = render_manifest_descriptor(services_.images, image_id);
  return place->second;
}

void ListWriter::write_ports(JsonWriter& json, const Container& container) {
  json.key("Ports").begin_array();
  static const network::PortMap kNone;
  const network::Attachment* live = networks_.attachment(container);
  for (const auto& [name, bindings] : live != nullptr ? live->ports : kNone) {
    const auto [number, proto] = split_once(name, '/');
    const std::int64_t port = parse_int(number).value_or(0);
    if (bindings.empty()) json.begin_object().field("PrivatePort", port).field("Type", proto).end_object();
    for (const network::PortBinding& binding : bindings) {
      json.begin_object();
      if (!binding.host_ip.empty()) json.field("IP", binding.host_ip);
      json.field("PrivatePort", port);
      if (const auto public_port = parse_int(binding.host_port)) json.field("PublicPort", *public_port);
      json.field("Type", proto).end_object();
    }
  }
  json.end_array();
}

void ListWriter::write_labels(JsonWriter& json, const Container& container) {
  json.key("Labels").begin_object();
  for (const auto& [key, value] : container.labels()) json.field(key, value);
  json.end_object();
}

void ListWriter::write_host_config(JsonWriter& json, const Container& container) {
  json.key("HostConfig").begin_object();
  json.field("NetworkMode", container.network_mode());
  if (version_ >= ApiVersion{1, 46} && container.host.Annotations && !container.host.Annotations->empty()) {
    json.key("Annotations").begin_object();
    for (const auto& [key, value] : *container.host.Annotations) json.field(key, value);
    json.end_object();
  }
  json.end_object();
}

void ListWriter::write_networks(JsonWriter& json, const Container& container) {
  json.key("NetworkSettings").begin_object().key("Networks").begin_object();
  for (const auto& [name, endpoint] : networks_.endpoints(container)) {
    json.key(name);
    write_endpoint(json, endpoint);
  }
  json.end_object().end_object();
}

void ListWriter::write_sizes(JsonWriter& json, const Container& container) {
  if (sizes_ == nullptr) return;
  const auto found = sizes_->find(container.id.str());
  if (found == sizes_->end()) return;
  if (found->second.rw != 0) json.field("SizeRw", found->second.rw);
  if (found->second.root_fs != 0) json.field("SizeRootFs", found->second.root_fs);
}

template <class List>
void write_strings(JsonWriter& json, const List& list) {
  if (!list) {
    json.null();
    return;
  }
  json.begin_array();
  for (const std::string& item : *list) json.value(item);
  json.end_array();
}

void write_ipam(JsonWriter& json, const std::optional<model::EndpointIpamConfig>& ipam) {
  if (!ipam) {
    json.null();
    return;
  }
  json.begin_object();
  if (ipam->IPv4Address && !ipam->IPv4Address->empty()) json.field("IPv4Address", *ipam->IPv4Address);
  if (ipam->IPv6Address && !ipam->IPv6Address->empty()) json.field("IPv6Address", *ipam->IPv6Address);
  if (ipam->LinkLocalIPs) {
    json.key("LinkLocalIPs");
    write_strings(json, ipam->LinkLocalIPs);
  }
  json.end_object();
}

}  // namespace

std::string render_container_list(const std::vector<engine::ContainerPtr>& containers, const engine::Services& services,
                                  engine::NetworkView& networks, ApiVersion version, const SizesById* sizes,
                                  const engine::LinkNames& links) {
  std::string body;
  body.reserve(64 + containers.size() * 1536);
  JsonWriter json(body);
  ListWriter writer(services, networks, version, sizes, links);
  json.begin_array();
  for (const engine::ContainerPtr& container : containers) writer.write(json, *container);
  json.end_array();
  return body;
}

std::string render_manifest_descriptor(const image::Images& images, const std::string& image_id) {
  std::string text;
  const image::ImagePtr image = images.find(image_id);
  if (!image) return text;
  JsonWriter json(text);
  json.begin_object();
  json.field("mediaType", image->manifest.media_type).field("digest", image->manifest.digest);
  json.field("size", image->manifest.size);
  if (const auto& platform = image->manifest.platform) {
    json.key("platform").begin_object().field("architecture", platform->architecture).field("os", platform->os);
    if (!platform->variant.empty()) json.field("variant", platform->variant);
    json.end_object();
  }
  json.end_object();
  return text;
}

std::string render_command(const Container& container) {
  if (container.args.empty()) return container.path;
  std::string command = container.path;
  for (const std::string& arg : container.args) {
    command += ' ';
    if (arg.find(' ') == std::string::npos) command += arg;
    else command.append("'").append(arg).append("'");
  }
  return command;
}

void write_mounts(JsonWriter& json, const Container& container) {
  json.begin_array();
  for (const volume::MountPoint& mount : container.mounts) {
    if (mount.origin == volume::MountPoint::Origin::tmpfs_map) continue;
    json.begin_object();
    json.field("Type", volume::mount_type_name(mount.type));
    if (!mount.name.empty()) json.field("Name", mount.name);
    json.field("Source", mount.source).field("Destination", mount.destination);
    if (!mount.driver.empty()) json.field("Driver", mount.driver);
    json.field("Mode", mount.mode).field("RW", mount.rw).field("Propagation", mount.propagation);
    json.end_object();
  }
  json.end_array();
}

void write_endpoint(JsonWriter& json, const model::EndpointSettings& endpoint) {
  json.begin_object();
  json.key("IPAMConfig");
  write_ipam(json, endpoint.IPAMConfig);
  json.key("Links");
  write_strings(json, endpoint.Links);
  json.key("Aliases");
  write_strings(json, endpoint.Aliases);
  json.field("MacAddress", endpoint.MacAddress);
  json.key("DriverOpts");
  if (endpoint.DriverOpts) {
    json.begin_object();
    for (const auto& [key, value] : *endpoint.DriverOpts) json.field(key, value);
    json.end_object();
  } else {
    json.null();
  }
  json.field("GwPriority", endpoint.GwPriority).field("NetworkID", endpoint.NetworkID);
  json.field("EndpointID", endpoint.EndpointID).field("Gateway", endpoint.Gateway);
  json.field("IPAddress", endpoint.IPAddress).field("IPPrefixLen", endpoint.IPPrefixLen);
  json.field("IPv6Gateway", endpoint.IPv6Gateway).field("GlobalIPv6Address", endpoint.GlobalIPv6Address);
  json.field("GlobalIPv6PrefixLen", endpoint.GlobalIPv6PrefixLen);
  json.key("DNSNames");
  write_strings(json, endpoint.DNSNames);
  json.end_object();
}

}  // namespace gantry::api
