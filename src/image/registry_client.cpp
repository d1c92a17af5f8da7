#include "image/registry_client.hpp"

#include <algorithm>

#include <arpa/inet.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json.hpp>
#include <boost/system/system_error.hpp>
#include <fmt/format.h>

#include "async/timeout.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "json/json.hpp"
#include "sys/file.hpp"

namespace asio = boost::asio;

namespace gantry::image {
namespace {

constexpr int kMaxRedirects = 5;
constexpr std::size_t kMaxTokenBytes = 1 << 20;
constexpr std::size_t kMaxTokens = 256;
constexpr std::string_view kHubHost = "registry-1.docker.io";

/// "Get": how Go's http package names a method in its errors.
std::string method_word(const std::string& method) {
  std::string word = to_lower(method);
  if (!word.empty()) word[0] = static_cast<char>(word[0] - 'a' + 'A');
  return word;
}

bool is_redirect(int status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }

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

std::string basic_header(const RegistryAuth& auth) {
  return "Authorization: Basic " + base64_encode(auth.username + ":" + auth.password);
}

bool contains_address(std::string_view cidr, const std::string& address) {
  const auto [network, bits_text] = split_once(cidr, '/');
  const auto bits = parse_int(bits_text);
  unsigned char net[16], ip[16];
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, std::string(network).c_str(), net) != 1) continue;
    if (::inet_pton(family, address.c_str(), ip) != 1) return false;
    const int width = family == AF_INET ? 32 : 128;
    if (!bits || *bits < 0 || *bits > width) return false;
    for (int i = 0; i < *bits; ++i)
      if (((net[i / 8] ^ ip[i / 8]) >> (7 - i % 8)) & 1) return false;
    return true;
  }
  return false;
}

std::string host_without_port(std::string_view host) {
  if (host.starts_with('[')) return std::string(host.substr(1, host.find(']') - 1));
  return std::string(host.substr(0, host.find(':')));
}

bool is_literal_address(const std::string& host) {
  unsigned char buffer[16];
  return ::inet_pton(AF_INET, host.c_str(), buffer) == 1 || ::inet_pton(AF_INET6, host.c_str(), buffer) == 1;
}

Task<std::vector<std::string>> resolve_host(std::string host) {
  std::vector<std::string> out;
  asio::ip::tcp::resolver resolver(co_await asio::this_coro::executor);
  try {
    auto lookup = resolver.async_resolve(host, "", asio::use_awaitable);
    for (const auto& entry : co_await async::with_timeout(std::move(lookup), std::chrono::seconds(5), "resolve " + host))
      out.push_back(entry.endpoint().address().to_string());
  } catch (const boost::system::system_error& e) {
    if (e.code() == asio::error::operation_aborted) throw;
  } catch (const Error& e) {
    if (e.code() != Errc::timed_out) throw;
  }
  co_return out;
}

json::Object parse_object(const std::string& text, std::string_view what) {
  json::Value value = with_context(what, [&] { return json::parse(text); });
  if (!value.is_object()) throw Error(Errc::internal, fmt::format("{}: not a JSON object", what));
  return std::move(value.get_object());
}

std::string get_string(const json::Object& object, std::string_view key) {
  const json::Value* v = object.if_contains(key);
  return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
}

std::string status_line(int status) {
  static const std::map<int, const char*> kWords = {
      {400, "Bad Request"},       {401, "Unauthorized"},          {403, "Forbidden"},   {404, "Not Found"},
      {405, "Method Not Allowed"}, {408, "Request Timeout"},       {429, "Too Many Requests"},
      {500, "Internal Server Error"}, {502, "Bad Gateway"},        {503, "Service Unavailable"}, {504, "Gateway Timeout"}};
  const auto it = kWords.find(status);
  return it == kWords.end() ? std::to_string(status) : fmt::format("{} {}", status, it->second);
}

[[noreturn]] void throw_transport(const HttpRequest& request, const HttpResponse& response) {
  if (response.failure == Failure::sink && response.sink_error) std::rethrow_exception(response.sink_error);
  throw Error(Errc::internal,
              fmt::format("{} {}: {}", method_word(request.method), quote(request.url), response.failure_text));
}

bool may_try_elsewhere(Failure failure) {
  return failure == Failure::lookup || failure == Failure::connect || failure == Failure::tls ||
         failure == Failure::timed_out || failure == Failure::interrupted || failure == Failure::other;
}

std::string manifest_accept() {
  return fmt::format("Accept: {}, {}, {}, {}, */*", kDockerManifest, kDockerManifestList, kOciManifest, kOciIndex);
}

}  // namespace

std::vector<Challenge> parse_challenges(std::string_view text) {
  std::vector<Challenge> out;
  std::size_t at = 0;
  const auto skip = [&](std::string_view chars) {
    while (at < text.size() && chars.find(text[at]) != std::string_view::npos) ++at;
  };
  const auto token = [&] {
    const std::size_t from = at;
    while (at < text.size() && std::string_view(" \t,=\"").find(text[at]) == std::string_view::npos) ++at;
    return text.substr(from, at - from);
  };
  while (at < text.size() && out.size() < 16) {
    skip(" \t,");
    const std::string_view word = token();
    if (word.empty()) break;
    skip(" \t");
    if (at >= text.size() || text[at] != '=') {  // a scheme
      out.push_back({to_lower(word), {}});
      continue;
    }
    ++at;
    skip(" \t");
    std::string value;
    if (at < text.size() && text[at] == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] == '\\' && at + 1 < text.size()) ++at;
        value += text[at];
      }
      ++at;
    } else {
      value = token();
    }
    if (!out.empty()) out.back().params.emplace(to_lower(word), std::move(value));
  }
  return out;
}

RemoteError read_remote_error(const HttpResponse& response) {
  RemoteError out{response.status, "", ""};
  try {
    const json::Object object = parse_object(response.body, "error document");
    const json::Value* errors = object.if_contains("errors");
    if (errors != nullptr && errors->is_array() && !errors->get_array().empty() && errors->get_array()[0].is_object()) {
      const json::Object& first = errors->get_array()[0].get_object();
      out.code = get_string(first, "code");
      std::string code = to_lower(out.code);
      std::replace(code.begin(), code.end(), '_', ' ');
      const std::string message = get_string(first, "message");
      out.text = message.empty() ? code : code.empty() ? message : fmt::format("{}: {}", code, message);
    } else {
      for (const char* key : {"details", "detail", "message", "error_description", "error"})
        if (out.text.empty()) out.text = get_string(object, key);
    }
  } catch (const Error&) {  // not JSON: a proxy's page, or nothing
  }
  if (out.text.size() > 4096) out.text.resize(4096);
  if (out.text.empty()) {
    if (out.status == 401) out.text = "authentication required";
    else out.text = fmt::format("received unexpected HTTP status: {}", status_line(out.status));
  }
  return out;
}

bool is_insecure_host(std::string_view host, const std::vector<std::string>& insecure,
                      const std::vector<std::string>& addresses) {
  const std::string bare = host_without_port(host);
  if (bare == "localhost") return true;
  std::vector<std::string> all = addresses;
  if (is_literal_address(bare)) all.push_back(bare);
  for (const std::string& address : all) {
    if (contains_address("127.0.0.0/8", address) || address == "::1") return true;
    for (const std::string& entry : insecure)
      if (entry.find('/') != std::string::npos && contains_address(entry, address)) return true;
  }
  return std::any_of(insecure.begin(), insecure.end(),
                     [&](const std::string& entry) { return equals_ignoring_case(entry, host); });
}

// ---- Registry

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
        throw Error(Errc::internal, fmt::format("missing key {} for client certificate {}. CA certificates must use the "
                                                "extension .crt", key, name));
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

Task<HttpResponse> Registry::get(std::string url, RegistryAuth auth) {
  const auto parts = parse_url(url);
  if (!parts) throw Error(Errc::invalid_argument, fmt::format("invalid registry address: {}", quote(url)));
  auto endpoints = co_await endpoints_for(parts->authority, false);
  HttpRequest request;
  request.url = std::move(url);
  request.headers = {"Accept: application/json"};
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
    request.body = fmt::format("grant_type=refresh_token&refresh_token={}&service={}&client_id=docker&scope={}",
                               percent_encode(auth.identity_token), percent_encode(service),
                               percent_encode(join(scopes, " ")));
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
    throw Error(response.status == 401 ? Errc::unauthorized : Errc::forbidden,
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
    const auto bearer = std::find_if(challenges.begin(), challenges.end(), [](const auto& c) { return c.scheme == "bearer"; });
    std::string header;
    if (bearer != challenges.end() && auth.registry_token.empty()) {
      std::chrono::seconds lifetime{60};
      try {
        header = "Authorization: Bearer " + co_await fetch_token(endpoint, *bearer, auth, {}, true, &refresh, &lifetime);
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

// ---- Repository

Repository::Repository(Registry& registry, Reference name, RegistryAuth auth, std::string actions,
                       std::vector<Endpoint> endpoints)
    : registry_(registry), name_(std::move(name)), auth_(std::move(auth)), actions_(std::move(actions)),
      endpoints_(std::move(endpoints)) {}

std::string Repository::scope() const { return fmt::format("repository:{}:{}", name_.path, actions_); }

/// Finds the first endpoint that answers at all, and learns how it wants to be asked.
Task<void> Repository::settle() {
  while (!settled_) {
    const std::size_t tried = current_;
    const Endpoint here = endpoint();
    HttpRequest ping;
    ping.url = here.base + "/v2/";
    HttpResponse response = co_await registry_.send(here, ping);
    if (settled_ || current_ != tried) continue;  // another request of ours was first
    if (response.failure != Failure::none) {
      if (!may_try_elsewhere(response.failure) || current_ + 1 >= endpoints_.size()) throw_transport(ping, response);
      ++current_;
      continue;
    }
    if (response.status == 401) challenges_ = parse_challenges(response.header("www-authenticate"));
    settled_ = true;
  }
}

/// Turns to the next endpoint, unless another request of ours has done so already. False if there is none.
bool Repository::leave_endpoint(std::size_t tried) {
  if (current_ != tried) return true;
  if (tried + 1 >= endpoints_.size()) return false;
  ++current_;
  settled_ = false;
  challenges_.clear();
  return true;
}

Task<HttpResponse> Repository::request_at(Endpoint here, HttpRequest request, std::string url, std::string extra_scope) {
  std::vector<std::string> scopes{scope()};
  if (!extra_scope.empty()) scopes.push_back(std::move(extra_scope));
  request.url = std::move(url);
  // Credentials belong to the registry that they were given for, not to a mirror of it.
  const RegistryAuth auth = here.mirror ? RegistryAuth{} : auth_;
  for (bool fresh = false;; fresh = true) {
    HttpRequest attempt = request;
    const std::string header = co_await registry_.authorize(here, challenges_, auth, scopes, fresh);
    if (!header.empty()) attempt.headers.push_back(header);
    HttpResponse response = co_await registry_.send(here, std::move(attempt));
    if (response.failure != Failure::none || response.status != 401 || fresh) co_return response;
    const auto challenges = parse_challenges(response.header("www-authenticate"));
    if (challenges.empty() || (header.empty() && auth.empty() && challenges.front().scheme == "basic")) co_return response;
    challenges_ = challenges;
  }
}

Task<HttpResponse> Repository::request(HttpRequest request, std::string path, std::string extra_scope) {
  co_await settle();
  const Endpoint here = endpoint();
  const std::string url = fmt::format("{}/v2/{}/{}", here.base, name_.path, path);
  try {
    HttpResponse response = co_await request_at(here, std::move(request), url, std::move(extra_scope));
    if (response.failure == Failure::sink) std::rethrow_exception(response.sink_error);
    co_return response;
  } catch (const Error& e) {
    // The token server already refuses: to a client that pulls this is the same as the registry refusing.
    if (e.code() != Errc::forbidden || actions_ != "pull") throw;
    throw Error(Errc::not_found,
                fmt::format("pull access denied for {}, repository does not exist or may require 'docker login': {}",
                            name_.familiar_name(), e.message()));
  }
}

void Repository::refuse_pull(const HttpResponse& response, const std::string& reference) const {
  const RemoteError remote = read_remote_error(response);
  const std::string name = name_.familiar_name();
  const std::string full = reference.find(':') != std::string::npos ? name_.with_digest(reference).familiar()
                                                                    : name_.with_tag(reference).familiar();
  const auto challenges = parse_challenges(response.header("www-authenticate"));
  const bool insufficient = std::any_of(challenges.begin(), challenges.end(), [](const Challenge& c) {
    const auto it = c.params.find("error");
    return it != c.params.end() && it->second == "insufficient_scope";
  });
  if (response.status == 403 || remote.code == "DENIED" || (response.status == 401 && insufficient)) {
    const std::string why = remote.code == "DENIED" ? remote.text : "denied: requested access to the resource is denied";
    throw Error(Errc::not_found,
                fmt::format("pull access denied for {}, repository does not exist or may require 'docker login': {}", name, why));
  }
  if (response.status == 401)
    throw Error(Errc::unauthorized,
                remote.text.starts_with("unauthorized") ? remote.text : fmt::format("unauthorized: {}", remote.text));
  if (response.status == 404 && remote.code == "NAME_UNKNOWN")
    throw Error(Errc::not_found, fmt::format("repository {} not found: {}", name, remote.text));
  if (response.status == 404)
    throw Error(Errc::not_found, fmt::format("manifest for {} not found: {}", full,
                                             remote.code.empty() ? "manifest unknown" : remote.text));
  if (response.status == 429 && !remote.text.starts_with("toomanyrequests"))
    throw Error(Errc::internal, fmt::format("toomanyrequests: {}", remote.text));
  throw Error(Errc::internal, remote.text);
}

Task<RemoteManifest> Repository::resolve(std::string reference) {
  const bool by_digest = reference.find(':') != std::string::npos;
  for (;;) {
    co_await settle();
    const std::size_t tried = current_;
    HttpRequest head;
    head.method = by_digest ? "GET" : "HEAD";
    head.headers = {manifest_accept()};
    head.max_body = kMaxManifestBytes;
    HttpResponse response = co_await request(head, "manifests/" + reference);
    const std::string digest = response.header("docker-content-digest");
    // HEAD carries no reason for a refusal, and old registries have no HEAD: ask again with GET.
    if (!by_digest && response.failure == Failure::none && (response.status != 200 || !is_valid_digest(digest))) {
      head.method = "GET";
      response = co_await request(head, "manifests/" + reference);
    }
    if (response.failure != Failure::none || response.status != 200) {
      if (response.failure != Failure::none || endpoint().mirror)
        if (leave_endpoint(tried)) continue;
      if (response.failure != Failure::none) {
        head.url = fmt::format("{}/v2/{}/manifests/{}", endpoint().base, name_.path, reference);
        throw_transport(head, response);
      }
      refuse_pull(response, reference);
    }
    RemoteManifest out;
    out.descriptor.media_type = std::string(trim(response.header("content-type").substr(0, response.header("content-type").find(';'))));
    if (head.method == "HEAD") {
      out.descriptor.digest = digest;
      out.descriptor.size = parse_int(response.header("content-length")).value_or(0);
      co_return out;
    }
    out.descriptor.digest = digest_of(response.body);
    out.descriptor.size = std::int64_t(response.body.size());
    if (by_digest && out.descriptor.digest != reference)
      throw Error(Errc::corrupted, fmt::format("manifest verification failed for digest {}", reference));
    out.bytes = std::move(response.body);
    co_return out;
  }
}

Task<RemoteManifest> Repository::get_manifest(std::string digest) {
  RemoteManifest out = co_await resolve(std::move(digest));
  co_return out;
}

Task<BlobAttempt> Repository::fetch_blob(std::string digest, std::int64_t offset,
                                         std::function<void(int, std::string_view)> sink) {
  HttpRequest get;
  get.headers = {"Accept: application/octet-stream, */*"};
  if (offset > 0) get.headers.push_back(fmt::format("Range: bytes={}-", offset));
  get.sink = std::move(sink);
  get.max_body = 64 << 10;
  BlobAttempt out;
  co_await settle();
  const std::size_t tried = current_;
  HttpResponse response = co_await request(get, "blobs/" + digest);
  if (response.failure == Failure::none && response.status >= 200 && response.status < 300) {
    const std::string encoding = to_lower(response.header("content-encoding"));
    if (!encoding.empty() && encoding != "identity")
      throw Error(Errc::internal, fmt::format("the registry sent blob {} with Content-Encoding {}", digest, encoding));
    out.complete = true;
    co_return out;
  }
  if (endpoints_.at(tried).mirror) out.retry = leave_endpoint(tried);
  try {
    if (response.failure != Failure::none) {
      get.url = fmt::format("{}/v2/{}/blobs/{}", endpoint().base, name_.path, digest);
      throw_transport(get, response);
    }
    const int s = response.status;
    out.retry = out.retry || s == 408 || s == 416 || s >= 500;
    if (s == 401 || s == 403) refuse_pull(response, digest);
    const RemoteError remote = read_remote_error(response);
    if (s == 404) throw Error(Errc::not_found, fmt::format("blob {} not found: {}", digest, remote.text));
    throw Error(Errc::internal, s == 429 && !remote.text.starts_with("toomanyrequests") ? "toomanyrequests: " + remote.text : remote.text);
  } catch (const Error&) {
    out.error = std::current_exception();
  }
  if (response.failure != Failure::none) out.retry = true;
  co_return out;
}

Task<std::string> Repository::get_blob(Descriptor descriptor, std::size_t limit) {
  if (descriptor.size > std::int64_t(limit))
    throw Error(Errc::invalid_argument, fmt::format("blob {} is larger than {} bytes", descriptor.digest, limit));
  auto bytes = std::make_shared<std::string>();
  for (int attempt = 1;; ++attempt) {
    bytes->clear();
    auto sink = [bytes, limit](int, std::string_view piece) {
      if (bytes->size() + piece.size() > limit) throw Error(Errc::corrupted, "blob is larger than announced");
      bytes->append(piece);
    };
    BlobAttempt result = co_await fetch_blob(descriptor.digest, 0, sink);
    if (result.complete) break;
    if (!result.retry || attempt >= 3) std::rethrow_exception(result.error);
  }
  if (std::int64_t(bytes->size()) != descriptor.size || digest_of(*bytes) != descriptor.digest)
    throw Error(Errc::corrupted, fmt::format("image config verification failed for digest {}", descriptor.digest));
  co_return std::move(*bytes);
}

Task<std::vector<std::string>> Repository::list_tags() {
  std::vector<std::string> tags;
  std::string path = "tags/list";
  for (int page = 0; page < 1000 && !path.empty(); ++page) {
    HttpRequest get;
    HttpResponse response = co_await request(get, path);
    if (response.failure != Failure::none) {
      get.url = fmt::format("{}/v2/{}/{}", endpoint().base, name_.path, path);
      throw_transport(get, response);
    }
    if (response.status != 200) refuse_pull(response, "latest");
    const json::Object object = parse_object(response.body, "tag list");
    if (const json::Value* list = object.if_contains("tags"); list != nullptr && list->is_array())
      for (const json::Value& tag : list->get_array())
        if (tag.is_string() && is_valid_tag(std::string_view(tag.get_string()))) tags.emplace_back(tag.get_string());
    // Link: </v2/<name>/tags/list?last=x&n=100>; rel="next"
    const std::string link = response.header("link");
    const auto from = link.find("/tags/list?");
    path = from == std::string::npos || link.find("rel=\"next\"") == std::string::npos
               ? std::string()
               : link.substr(from + 1, link.find('>', from) - from - 1);
  }
  co_return tags;
}

void Repository::refuse_push(const HttpResponse& response) const {
  const RemoteError remote = read_remote_error(response);
  if (response.status == 401 && remote.code != "DENIED")
    throw Error(Errc::unauthorized, remote.text.starts_with("unauthorized") ? remote.text : "unauthorized: " + remote.text);
  if (response.status == 403 || remote.code == "DENIED")
    throw Error(Errc::forbidden, remote.code == "DENIED" ? remote.text : "denied: requested access to the resource is denied");
  throw Error(Errc::internal, remote.text);
}

namespace {

void require_transport(const Endpoint& endpoint, HttpRequest request, const HttpResponse& response, const std::string& path) {
  if (response.failure == Failure::none) return;
  request.url = endpoint.base + path;
  throw_transport(request, response);
}

/// Location may be absolute or relative to the endpoint.
std::string absolute_location(const Endpoint& endpoint, const std::string& location) {
  if (parse_url(location)) return location;
  if (!location.starts_with('/')) throw Error(Errc::internal, "the registry sent no usable upload location");
  return endpoint.base + location;
}

}  // namespace

Task<bool> Repository::has_blob(std::string digest) {
  HttpRequest head;
  head.method = "HEAD";
  HttpResponse response = co_await request(head, "blobs/" + digest);
  require_transport(endpoint(), head, response, fmt::format("/v2/{}/blobs/{}", name_.path, digest));
  if (response.status == 200) co_return true;
  if (response.status == 401 || response.status == 403) refuse_push(response);
  co_return false;
}

Task<bool> Repository::mount_blob(std::string digest, std::string from_path) {
  HttpRequest post;
  post.method = "POST";
  const std::string path = fmt::format("blobs/uploads/?mount={}&from={}", percent_encode(digest), percent_encode(from_path));
  HttpResponse response = co_await request(post, path, fmt::format("repository:{}:pull", from_path));
  if (response.failure != Failure::none) co_return false;
  if (response.status == 201) co_return true;
  if (response.status != 202 || response.header("location").empty()) co_return false;
  // It opened an upload instead; we begin our own later.
  HttpRequest cancel;
  cancel.method = "DELETE";
  (void)co_await request_at(endpoint(), cancel, absolute_location(endpoint(), response.header("location")), {});
  co_return false;
}

Task<void> Repository::upload_blob(std::string digest, std::shared_ptr<Upload> upload) {
  HttpRequest post;
  post.method = "POST";
  HttpResponse response = co_await request(post, "blobs/uploads/");
  require_transport(endpoint(), post, response, fmt::format("/v2/{}/blobs/uploads/", name_.path));
  if (response.status != 202) refuse_push(response);
  const Endpoint here = endpoint();
  std::string location = absolute_location(here, response.header("location"));
  location += (location.find('?') == std::string::npos ? "?digest=" : "&digest=") + percent_encode(digest);
  HttpRequest put;
  put.method = "PUT";
  put.upload = std::move(upload);
  put.headers = {"Content-Type: application/octet-stream"};
  // Our credentials stay with the registry, wherever the upload goes.
  const auto target = parse_url(location);
  const auto own = parse_url(here.base);
  if (target && own && target->authority == own->authority) {
    response = co_await request_at(here, put, location, {});
  } else {
    Endpoint other = here;
    other.tls = {};
    other.tls.verify = here.tls.verify;
    put.url = location;
    response = co_await registry_.send(other, put);
  }
  put.url = location;
  if (response.failure != Failure::none) throw_transport(put, response);
  if (response.status != 201 && response.status != 204) refuse_push(response);
}

Task<void> Repository::put_manifest(std::string reference, std::string media_type, std::string bytes) {
  HttpRequest put;
  put.method = "PUT";
  put.headers = {"Content-Type: " + media_type};
  put.body = std::move(bytes);
  HttpResponse response = co_await request(put, "manifests/" + reference);
  require_transport(endpoint(), put, response, fmt::format("/v2/{}/manifests/{}", name_.path, reference));
  if (response.status < 200 || response.status >= 300) refuse_push(response);
}

}  // namespace gantry::image
