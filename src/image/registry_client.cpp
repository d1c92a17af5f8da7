#include "image/registry_client.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json.hpp>
#include <boost/system/system_error.hpp>

#include "async/timeout.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/registry_wire.hpp"
#include "sys/file.hpp"

namespace asio = boost::asio;

namespace gantry::image {
namespace {

constexpr int kMaxRedirects = 5;
constexpr std::size_t kMaxTokenBytes = 1 << 20;
constexpr std::size_t kMaxTokens = 256;
constexpr std::string_view kHubHost = "registry-1.docker.io";

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_credential_header(const std::string& header) { return to_lower(header).starts_with("authorization:"); }

/// The next hop of a redirect: without our credentials when it leaves the host. Throws for one that must not be taken.
HttpRequest follow(const HttpRequest& from, const HttpResponse& response) {
  const auto old_url = parse_url(from.url);
  const auto new_url = parse_url(response.redirect);
  if (!new_url || !old_url)
    throw Error(Errc::internal, fmt::format("{} {}: redirected to an address that is not http(s)",
                                            method_word(from.method), quote(from.url)));
  if (old_url->scheme == "https" && new_url->scheme == "http" && from.tls.verify)
    throw Error(Errc::internal,
                fmt::format("{} {}: redirected from https to http", method_word(from.method), quote(from.url)));
  HttpRequest next = from;
  next.url = response.redirect;
  if (old_url->scheme != new_url->scheme || old_url->authority != new_url->authority) {
    std::erase_if(next.headers, is_credential_header);
    const bool verify = next.tls.verify;
    next.tls = {};
    next.tls.verify = verify;
  }
  return next;
}

Task<std::vector<std::string>> resolve_host(std::string host) {
  std::vector<std::string> out;
  asio::ip::tcp::resolver resolver(co_await asio::this_coro::executor);
  try {
    auto lookup = resolver.async_resolve(host, "", asio::use_awaitable);
    for (const auto& entry :
         co_await async::with_timeout(std::move(lookup), std::chrono::seconds(5), "resolve " + host))
      out.push_back(entry.endpoint().address().to_string());
  } catch (const boost::system::system_error& e) {
    if (e.code() == asio::error::operation_aborted) throw;
  } catch (const Error& e) {
    if (e.code() != Errc::timed_out) throw;
  }
  co_return out;
}

}  // namespace

Registry::Registry(async::Lanes& lanes, RegistrySettings settings) : lanes_(lanes), settings_(std::move(settings)) {}

namespace {

/// certs.d/<host>/: *.crt are certificate authorities, *.cert with a *.key of the same name is ours.
TlsSettings load_tls_blocking(const std::vector<std::string>& dirs, const std::string& host) {
  TlsSettings tls;
  for (const std::string& dir : dirs) {
    const sys::Path path = sys::Path(dir) / host;
    std::error_code ec;
    if (!std::filesystem::is_directory(path, ec)) continue;
    for (const std::string& name : sys::list_directory(path)) {
      if (name.ends_with(".crt")) tls.ca_pem += sys::read_file(path / name, 1 << 20) + "\n";
      if (!name.ends_with(".cert")) continue;
      const std::string key = name.substr(0, name.size() - 5) + ".key";
      if (!std::filesystem::exists(path / key, ec))
        throw Error(Errc::internal,
                    fmt::format("missing key {} for client certificate {}. CA certificates must use the "
                                "extension .crt",
                                key, name));
      tls.client_cert = (path / name).string();
      tls.client_key = (path / key).string();
    }
  }
  return tls;
}

}  // namespace

Task<TlsSettings> Registry::load_tls(std::string host) {
  co_return co_await lanes_.quick.run(
      [dirs = settings_.certificate_dirs, host] { return load_tls_blocking(dirs, host); });
}

Task<std::vector<Endpoint>> Registry::endpoints_for(std::string host, bool with_mirrors) {
  std::vector<Endpoint> out;
  if (host == "docker.io") {
    if (with_mirrors) {
      for (const std::string& mirror : settings_.mirrors) {
        const auto url = parse_url(mirror);
        if (!url) continue;
        Endpoint e;
        e.base = mirror.ends_with('/') ? mirror.substr(0, mirror.size() - 1) : mirror;
        e.auth_host = url->authority;
        e.mirror = true;
        e.tls = co_await load_tls(url->authority);
        e.insecure = is_insecure_host(url->authority, settings_.insecure, {});
        e.tls.verify = !e.insecure;
        out.push_back(std::move(e));
      }
    }
    Endpoint hub;
    hub.base = "https://" + std::string(kHubHost);
    hub.auth_host = "docker.io";
    hub.tls = co_await load_tls(std::string(kHubHost));
    out.push_back(std::move(hub));
    co_return out;
  }
  std::vector<std::string> addresses;
  const bool has_networks = std::any_of(settings_.insecure.begin(), settings_.insecure.end(),
                                        [](const std::string& e) { return e.find('/') != std::string::npos; });
  if (has_networks && !is_literal_address(host_without_port(host)))
    addresses = co_await resolve_host(host_without_port(host));
  Endpoint secure;
  secure.base = "https://" + host;
  secure.auth_host = host;
  secure.tls = co_await load_tls(host);
  secure.insecure = is_insecure_host(host, settings_.insecure, addresses);
  secure.tls.verify = !secure.insecure;
  out.push_back(secure);
  if (secure.insecure) {
    Endpoint plain = secure;
    plain.base = "http://" + host;
    out.push_back(std::move(plain));
  }
  co_return out;
}

Task<RepositoryPtr> Registry::open(Reference name, RegistryAuth auth, std::string actions) {
  auto endpoints = co_await endpoints_for(name.domain, actions == "pull");
  co_return std::make_shared<Repository>(*this, std::move(name), std::move(auth), std::move(actions),
                                         std::move(endpoints));
}

Task<HttpResponse> Registry::send(Endpoint endpoint, HttpRequest request) {
  request.tls = endpoint.tls;
  request.proxy = settings_.proxy;
  request.user_agent = settings_.user_agent;
  request.connect_timeout = settings_.connect_timeout;
  request.stall_timeout = settings_.stall_timeout;
  for (int hop = 0;; ++hop) {
    HttpRequest attempt = request;
    HttpResponse response = co_await http_.send(std::move(attempt));
    const bool redirected = response.failure == Failure::none && is_redirect(response.status) &&
                            !response.redirect.empty() && (request.method == "GET" || request.method == "HEAD");
    if (!redirected) co_return response;
    if (hop == kMaxRedirects)
      throw Error(Errc::internal, fmt::format("{} {}: stopped after {} redirects", method_word(request.method),
                                              quote(request.url), kMaxRedirects));
    request = follow(request, response);
  }
}

Task<HttpResponse> Registry::get(std::string url, RegistryAuth auth, std::function<void(int, std::string_view)> sink) {
  const auto parts = parse_url(url);
  if (!parts) throw Error(Errc::invalid_argument, fmt::format("invalid registry address: {}", quote(url)));
  auto endpoints = co_await endpoints_for(parts->authority, false);
  HttpRequest request;
  request.url = std::move(url);
  request.headers = {sink ? "Accept: */*" : "Accept: application/json"};
  request.sink = std::move(sink);
  if (!auth.username.empty()) request.headers.push_back(basic_header(auth));
  HttpResponse response = co_await send(endpoints.front(), request);
  if (response.failure != Failure::none) throw_transport(request, response);
  co_return response;
}

Task<std::string> Registry::fetch_token(Endpoint endpoint, Challenge challenge, RegistryAuth auth,
                                        std::vector<std::string> scopes, bool offline, std::string* refresh_token,
                                        std::chrono::seconds* lifetime) {
  const std::string realm = challenge.params["realm"];
  const std::string service = challenge.params["service"];
  const auto url = parse_url(realm);
  if (!url) throw Error(Errc::internal, fmt::format("no usable realm in the registry's challenge: {}", quote(realm)));
  // The realm is the registry's word, and gets the password: it must be at least as well protected as the registry.
  const bool plain_allowed = endpoint.insecure || is_insecure_host(url->authority, settings_.insecure, {});
  if (url->scheme != "https" && !plain_allowed)
    throw Error(Errc::internal, fmt::format("the registry's token server {} is not https", quote(realm)));
  Endpoint server = endpoint;
  const auto own = parse_url(endpoint.base);
  if (!own || own->authority != url->authority) {
    server.tls = co_await load_tls(url->authority);
    server.tls.verify = !plain_allowed;
  }
  HttpRequest request;
  request.max_body = kMaxTokenBytes;
  request.total_timeout = std::chrono::seconds(60);
  if (!auth.identity_token.empty()) {
    request.method = "POST";
    request.url = realm;
    request.headers = {"Content-Type: application/x-www-form-urlencoded"};
    request.body =
        fmt::format("grant_type=refresh_token&refresh_token={}&service={}&client_id=docker&scope={}",
                    percent_encode(auth.identity_token), percent_encode(service), percent_encode(join(scopes, " ")));
  } else {
    std::string query = "service=" + percent_encode(service);
    for (const std::string& scope : scopes) query += "&scope=" + percent_encode(scope);
    if (!auth.username.empty()) query += "&account=" + percent_encode(auth.username);
    if (offline) query += "&offline_token=true&client_id=docker";
    request.url = realm + (realm.find('?') == std::string::npos ? "?" : "&") + query;
    if (!auth.username.empty()) request.headers.push_back(basic_header(auth));
  }
  HttpResponse response = co_await send(server, request);
  if (response.failure != Failure::none) throw_transport(request, response);
  if (response.status == 401 || response.status == 403) {
    const RemoteError remote = read_remote_error(response);
    const bool known = remote.text.starts_with("unauthorized") || remote.text.starts_with("denied");
    throw Error(
        response.status == 401 ? Errc::unauthorized : Errc::forbidden,
        known ? remote.text : fmt::format("{}: {}", response.status == 401 ? "unauthorized" : "denied", remote.text));
  }
  if (response.status != 200)
    throw Error(Errc::internal, fmt::format("failed to fetch a token from {}: {}", quote(url->authority),
                                            read_remote_error(response).text));
  const json::Object object = parse_object(response.body, "token");
  std::string token = get_string(object, "token");
  if (token.empty()) token = get_string(object, "access_token");
  if (token.empty()) throw Error(Errc::internal, "authorization server did not include a token in the response");
  if (token.find_first_of("\r\n") != std::string::npos) throw Error(Errc::internal, "malformed token");
  if (refresh_token != nullptr) *refresh_token = get_string(object, "refresh_token");
  const json::Value* expires = object.if_contains("expires_in");
  const std::int64_t seconds = expires != nullptr && expires->is_int64() ? expires->get_int64() : 60;
  *lifetime = std::chrono::seconds(std::clamp<std::int64_t>(seconds, 60, 86400));
  co_return token;
}

Task<std::string> Registry::authorize(Endpoint endpoint, std::vector<Challenge> challenges, RegistryAuth auth,
                                      std::vector<std::string> scopes, bool fresh) {
  if (!auth.registry_token.empty()) co_return "Authorization: Bearer " + auth.registry_token;
  const auto scheme = [&](std::string_view name) {
    return std::find_if(challenges.begin(), challenges.end(), [&](const Challenge& c) { return c.scheme == name; });
  };
  if (const auto bearer = scheme("bearer"); bearer != challenges.end()) {
    const std::string key = join({bearer->params["realm"], bearer->params["service"], join(scopes, " "), auth.username,
                                  digest_of(auth.password + "\n" + auth.identity_token)},
                                 "\n");
    const auto now = std::chrono::steady_clock::now();
    if (const auto it = tokens_.find(key); it != tokens_.end() && !fresh && it->second.expires > now)
      co_return "Authorization: Bearer " + it->second.value;
    std::chrono::seconds lifetime{60};
    Token token;
    token.value = co_await fetch_token(endpoint, *bearer, auth, scopes, false, nullptr, &lifetime);
    token.expires = now + lifetime - std::chrono::seconds(5);
    if (tokens_.size() >= kMaxTokens) tokens_.clear();
    const std::string header = "Authorization: Bearer " + token.value;
    tokens_[key] = std::move(token);
    co_return header;
  }
  if (scheme("basic") != challenges.end() && !auth.username.empty()) co_return basic_header(auth);
  co_return std::string();
}

Task<std::string> Registry::log_in(RegistryAuth auth) {
  const std::string host = auth_host(auth.server_address);
  auto endpoints = co_await endpoints_for(host, false);
  HttpRequest ping;
  HttpResponse response;
  Endpoint endpoint;
  for (const Endpoint& candidate : endpoints) {
    endpoint = candidate;
    ping.url = candidate.base + "/v2/";
    response = co_await send(candidate, ping);
    if (response.failure == Failure::none) break;
  }
  if (response.failure != Failure::none) throw_transport(ping, response);
  std::string refresh;
  if (response.status == 401) {
    const auto challenges = parse_challenges(response.header("www-authenticate"));
    const auto bearer =
        std::find_if(challenges.begin(), challenges.end(), [](const auto& c) { return c.scheme == "bearer"; });
    std::string header;
    if (bearer != challenges.end() && auth.registry_token.empty()) {
      std::chrono::seconds lifetime{60};
      try {
        header =
            "Authorization: Bearer " + co_await fetch_token(endpoint, *bearer, auth, {}, true, &refresh, &lifetime);
      } catch (Error& e) {
        if (e.code() == Errc::unauthorized) e.prefix(fmt::format("Get {}", quote(ping.url)));
        throw;
      }
    } else {
      header = co_await authorize(endpoint, challenges, auth, {}, true);
    }
    if (!header.empty()) ping.headers = {header};
    response = co_await send(endpoint, ping);
    if (response.failure != Failure::none) throw_transport(ping, response);
  }
  if (response.status == 401) {
    const RemoteError remote = read_remote_error(response);
    throw Error(Errc::unauthorized, fmt::format("login attempt to {} failed with status: 401 Unauthorized", ping.url));
  }
  if (response.status != 200)
    throw Error(Errc::internal,
                fmt::format("login attempt to {} failed with status: {}", ping.url, status_line(response.status)));
  co_return refresh;
}

}  // namespace gantry::image
