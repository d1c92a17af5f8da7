#include "api/network_routes.hpp"

#include <boost/describe/class.hpp>

#include "api/json_body.hpp"
#include "api/network_json.hpp"
#include "model/model.hpp"

namespace gantry::api {
namespace wire {

using json::StringMap;

struct IpamConfig {
  std::string Subnet;
  std::string IPRange;
  std::string Gateway;
  std::optional<StringMap> AuxiliaryAddresses;
};
BOOST_DESCRIBE_STRUCT(IpamConfig, (), (Subnet, IPRange, Gateway, AuxiliaryAddresses))

struct Ipam {
  std::string Driver;
  std::optional<StringMap> Options;
  std::optional<std::vector<IpamConfig>> Config;
};
BOOST_DESCRIBE_STRUCT(Ipam, (), (Driver, Options, Config))

struct ConfigReference {
  std::string Network;
};
BOOST_DESCRIBE_STRUCT(ConfigReference, (), (Network))

struct CreateNetwork {
  std::string Name;
  std::string Driver;
  std::string Scope;
  std::optional<bool> EnableIPv4;
  std::optional<bool> EnableIPv6;
  std::optional<Ipam> IPAM;
  bool Internal = false;
  bool Attachable = false;
  bool Ingress = false;
  bool ConfigOnly = false;
  std::optional<ConfigReference> ConfigFrom;
  std::optional<StringMap> Options;
  std::optional<StringMap> Labels;
};
BOOST_DESCRIBE_STRUCT(CreateNetwork, (),
                      (Name, Driver, Scope, EnableIPv4, EnableIPv6, IPAM, Internal, Attachable, Ingress, ConfigOnly,
                       ConfigFrom, Options, Labels))

struct Connect {
  std::string Container;
  std::optional<model::EndpointSettings> EndpointConfig;
};
BOOST_DESCRIBE_STRUCT(Connect, (), (Container, EndpointConfig))

struct Disconnect {
  std::string Container;
  bool Force = false;
};
BOOST_DESCRIBE_STRUCT(Disconnect, (), (Container, Force))

}  // namespace wire

namespace {

constexpr ApiVersion kPrune{1, 25};

network::NetworkSpec to_spec(wire::CreateNetwork body, ApiVersion version) {
  if (body.Scope == "swarm" || body.Ingress || body.Driver == "overlay")
    throw Error(Errc::forbidden,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this "
                "node to swarm and try again.");
  network::NetworkSpec spec;
  spec.name = std::move(body.Name);
  if (!body.Driver.empty()) spec.driver = std::move(body.Driver);
  if (version >= ApiVersion{1, 48}) spec.enable_ipv4 = body.EnableIPv4;
  spec.enable_ipv6 = body.EnableIPv6;
  spec.internal = body.Internal;
  spec.attachable = body.Attachable;
  spec.options = body.Options.value_or(json::StringMap{});
  spec.labels = body.Labels.value_or(json::StringMap{});
  spec.config_only = body.ConfigOnly;
  if (body.ConfigFrom) spec.config_from = std::move(body.ConfigFrom->Network);
  if (!body.IPAM) return spec;
  if (!body.IPAM->Driver.empty()) spec.ipam_driver = body.IPAM->Driver;
  spec.ipam_options = body.IPAM->Options.value_or(json::StringMap{});
  for (const wire::IpamConfig& config : body.IPAM->Config.value_or(std::vector<wire::IpamConfig>{}))
    spec.ipam.push_back(
        {config.Subnet, config.IPRange, config.Gateway, config.AuxiliaryAddresses.value_or(json::StringMap{})});
  return spec;
}

bool passes(const network::NetworkInfo& network, const Filters& filters) {
  if (filters.has("name") && !filters.regex_match("name", network.name)) return false;
  if (filters.has("id") && !filters.regex_match("id", network.id)) return false;
  if (!filters.exact_match("driver", network.driver) || !filters.exact_match("scope", network.scope)) return false;
  if (!filters.labels_match("label", network.labels)) return false;
  for (const std::string& type : filters.values("type")) {
    if (type != "custom" && type != "builtin")
      throw Error(Errc::invalid_argument, "invalid filter: 'type'='" + type + "'");
    if ((type == "builtin") != network.predefined) return false;
  }
  const auto dangling = filters.flag("dangling");
  return !dangling || *dangling == (!network.predefined && network.members.empty());
}

}  // namespace

void NetworkRoutes::add_to(Router& router) {
  constexpr RouteOptions kVerb{.cancel = Cancel::never, .min_api = {}};
  static const Route<NetworkRoutes> kRoutes[] = {
      {Method::get, "/networks", &NetworkRoutes::list},
      {Method::get, "/networks/", &NetworkRoutes::list},
      {Method::get, "/networks/{id:.*}", &NetworkRoutes::inspect},
      {Method::post, "/networks/create", &NetworkRoutes::create, kVerb},
      {Method::post, "/networks/prune", &NetworkRoutes::prune, {.cancel = Cancel::never, .min_api = kPrune}},
      {Method::post, "/networks/{id:.*}/connect", &NetworkRoutes::connect, kVerb},
      {Method::post, "/networks/{id:.*}/disconnect", &NetworkRoutes::disconnect, kVerb},
      {Method::delete_, "/networks/{id:.*}", &NetworkRoutes::remove, kVerb},
  };
  router.add(*this, kRoutes);
}

Task<Response> NetworkRoutes::list(Request request) {
  const Filters filters = request.query().filters();
  filters.require_known({"dangling", "driver", "id", "label", "name", "scope", "type"});
  std::string body;
  JsonWriter json(body);
  json.begin_array();
  for (const network::NetworkInfo& network : services_.networks.list())
    if (passes(network, filters)) write_network(json, network, request.version() < ApiVersion{1, 28});
  json.end_array();
  co_return Response::json(200, std::move(body));
}

Task<Response> NetworkRoutes::inspect(Request request) {
  const std::string verbose = request.query().get("verbose");
  static const std::set<std::string> kBooleans = {"",  "1", "t", "T",     "TRUE",  "true", "True",
                                                  "0", "f", "F", "FALSE", "false", "False"};
  if (!kBooleans.contains(verbose))
    throw Error(Errc::invalid_argument, "invalid value for verbose: " + verbose + ": it is neither true nor false");
  const network::NetworkInfo network = services_.networks.get(request.param("id"));
  const std::string scope = request.query().get("scope");
  if (!scope.empty() && scope != network.scope)
    throw Error(Errc::not_found, "network " + request.param("id") + " not found");
  std::string body;
  JsonWriter json(body);
  write_network(json, network, true);
  co_return Response::json(200, std::move(body));
}

Task<Response> NetworkRoutes::create(Request request) {
  wire::CreateNetwork body = co_await read_json<wire::CreateNetwork>(request);
  network::NetworkSpec spec = to_spec(std::move(body), request.version());
  const network::Networks::Created created = co_await services_.networks.create_network(std::move(spec));
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("Id", created.id).field("Warning", created.warning).end_object();
  co_return Response::json(201, std::move(text));
}

Task<Response> NetworkRoutes::remove(Request request) {
  co_await services_.networks.remove_network(request.param("id"));
  co_return Response::empty(204);
}

Task<Response> NetworkRoutes::connect(Request request) {
  wire::Connect body = co_await read_json<wire::Connect>(request);
  model::EndpointSettings settings = std::move(body.EndpointConfig).value_or(model::EndpointSettings{});
  if (request.version() < ApiVersion{1, 54}) settings.MacAddress.clear();
  if (request.version() < ApiVersion{1, 48}) settings.GwPriority = 0;
  co_await links_.connect(request.param("id"), body.Container, std::move(settings));
  co_return Response::empty(200);
}

Task<Response> NetworkRoutes::disconnect(Request request) {
  const wire::Disconnect body = co_await read_json<wire::Disconnect>(request);
  co_await links_.disconnect(request.param("id"), body.Container, body.Force);
  co_return Response::empty(200);
}

Task<Response> NetworkRoutes::prune(Request request) {
  const Filters filters = request.query().filters();
  filters.require_known({"label", "label!", "until"});
  const std::vector<std::string> removed = co_await links_.prune(filters);
  std::string body;
  JsonWriter json(body);
  json.begin_object().key("NetworksDeleted");
  if (removed.empty()) {
    json.null();
  } else {
    json.begin_array();
    for (const std::string& name : removed) json.value(name);
    json.end_array();
  }
  json.end_object();
  co_return Response::json(200, std::move(body));
}

}  // namespace gantry::api
