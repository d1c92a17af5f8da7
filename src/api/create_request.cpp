#include "api/create_request.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "model/model.hpp"

namespace gantry::api {
namespace {

using engine::CreateRequest;

[[noreturn]] void refuse(const std::string& text) { throw Error(Errc::invalid_argument, text); }

/// The default network's endpoint goes by two names.
void rename_default_endpoint(CreateRequest& request) {
  auto named = request.networks.extract("default");
  if (named.empty()) return;
  named.key() = "bridge";
  request.networks.insert(std::move(named));
}

CreateRequest decode(const std::string& body) {
  if (body.empty()) refuse("invalid JSON: got EOF while reading request body");
  const json::Value document = json::parse(body);
  const json::Object* object = document.if_object();
  if (document.is_null()) refuse("config cannot be empty in order to create a container");
  CreateRequest request;
  request.config = model::decode_container_config(document);
  if (object == nullptr) return request;
  if (const json::Value* host = json::find(*object, "HostConfig"); host != nullptr && !host->is_null())
    request.host = model::decode_host_config(*host);
  if (const json::Value* networking = json::find(*object, "NetworkingConfig");
      networking != nullptr && !networking->is_null()) {
    const model::NetworkingConfig decoded = model::decode_networking_config(*networking);
    if (decoded.EndpointsConfig)
      for (const auto& [name, settings] : *decoded.EndpointsConfig)
        request.networks[name] = settings.value_or(model::EndpointSettings{});
  }
  rename_default_endpoint(request);
  return request;
}

/// Options of another type than the mount's were ignored before they became an error.
void drop_mismatched_options(model::Mount& mount) {
  if (mount.Type != "bind") mount.BindOptions.reset();
  if (mount.Type != "volume") mount.VolumeOptions.reset();
  if (mount.Type != "tmpfs") mount.TmpfsOptions.reset();
}

void shape_mount(model::Mount& mount, ApiVersion version) {
  if (version < ApiVersion{1, 48} && mount.Type == "image") refuse("Mount type \"Image\" needs API v1.48 or newer");
  if (version < ApiVersion{1, 45} && mount.VolumeOptions && !mount.VolumeOptions->Subpath.value_or("").empty())
    refuse("VolumeOptions.Subpath needs API v1.45 or newer");
  if (version < ApiVersion{1, 42}) {
    drop_mismatched_options(mount);
    if (mount.BindOptions) mount.BindOptions->CreateMountpoint.reset();
  }
  if (version < ApiVersion{1, 40} && mount.BindOptions) mount.BindOptions->NonRecursive.reset();
  if (version < ApiVersion{1, 44} && mount.Type == "bind") {
    if (mount.BindOptions) mount.BindOptions->ReadOnlyForceRecursive.reset();
    if (mount.ReadOnly.value_or(false)) {
      if (!mount.BindOptions) mount.BindOptions.emplace();
      mount.BindOptions->ReadOnlyNonRecursive.emplace(true);
    }
  }
}

void shape_host(CreateRequest& request, const CreateContext& context) {
  const ApiVersion version = context.version;
  model::HostConfig& host = request.host;
  if (host.Mounts)
    for (model::Mount& mount : *host.Mounts) shape_mount(mount, version);
  if (version < ApiVersion{1, 40} && host.IpcMode.empty()) host.IpcMode = "shareable";
  if (version < ApiVersion{1, 41} && !context.cgroup_v2 && host.CgroupnsMode.empty()) host.CgroupnsMode = "host";
  if (version < ApiVersion{1, 42}) host.ConsoleSize = {0, 0};
  if (version < ApiVersion{1, 43}) host.Annotations.reset();
  if (version < ApiVersion{1, 44} && request.config.Healthcheck) request.config.Healthcheck->StartInterval.reset();
  if (host.PidsLimit && *host.PidsLimit <= 0) host.PidsLimit.reset();
}

std::string main_network(const model::HostConfig& host) {
  return host.NetworkMode.empty() || host.NetworkMode == "default" ? "bridge" : host.NetworkMode;
}

/// The container's own MAC address moved to its main network's endpoint.
void shape_mac_address(CreateRequest& request, ApiVersion version) {
  const std::string address = request.config.MacAddress.value_or("");
  request.config.MacAddress.reset();
  if (version < ApiVersion{1, 44})
    for (auto& [name, settings] : request.networks) settings.MacAddress.clear();
  if (address.empty()) return;
  if (version >= ApiVersion{1, 52})
    refuse("container-wide MAC address no longer supported; use endpoint-specific MAC address instead");
  const std::string mode = main_network(request.host);
  if (mode == "host" || mode == "none" || mode.starts_with("container:"))
    refuse("conflicting options: mac-address and the network mode");
  auto main = request.networks.find(mode);
  if (main == request.networks.end()) main = request.networks.try_emplace(mode).first;
  std::string& wanted = main->second.MacAddress;
  if (!wanted.empty() && !equals_ignoring_case(wanted, address))
    refuse(
        "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be "
        "left empty");
  wanted = address;
  if (version >= ApiVersion{1, 44})
    request.warnings.push_back(
        "The container-wide MacAddress field is now deprecated. It should be specified in "
        "EndpointsConfig instead.");
}

void shape_networks(CreateRequest& request, ApiVersion version) {
  if (version < ApiVersion{1, 44} && request.networks.size() > 1) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : request.networks) names.push_back(name);
    refuse("Container cannot be created with multiple network endpoints: " + join(names, ", "));
  }
  if (version < ApiVersion{1, 48})
    for (auto& [name, settings] : request.networks) settings.GwPriority = 0;
}

}  // namespace

CreateRequest read_create_request(const std::string& body, const CreateContext& context) {
  CreateRequest request = decode(body);
  shape_host(request, context);
  shape_networks(request, context.version);
  shape_mac_address(request, context.version);
  return request;
}

}  // namespace gantry::api
